"""The protocol of a guide. Importable without torch and without vLLM."""

from typing import Protocol

from vllm_sgl.core import GuideRequest, GuideResult


class Guide(Protocol):
    """Looks at requests before the large model does. A wrapper takes a guide and is one.

    Importance and answers that leave a guide are in the large model's tokens, whatever the guide's own are.
    """

    @property
    def context(self) -> int:
        """The most tokens, prompt and answer, that it takes; ``sys.maxsize`` if it can only tell by looking,
        and raises ``Unguidable`` then."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it can take requests."""
        ...

    def sees(self, request: GuideRequest) -> int:
        """Visual tokens that its model is given for a request, by which its work is counted: those of the
        large model where it cannot tell."""
        ...

    async def start(self) -> None:
        """Get ready for the first request.

        Raises:
            NotImplementedError: where this guide cannot work on this machine or with this model.
        """
        ...

    async def look(self, request: GuideRequest, answer_tokens: int) -> GuideResult:
        """Answer greedily, with at most ``answer_tokens`` tokens, and rate every visual token.

        Raises:
            Unguidable: if this guide cannot take this request.
            GuideError: when the guide fails, is dead, is too slow, or what it saw does not add up.
            RequestAborted: when the request was aborted by its id.
        """
        ...

    async def confirm(self, request: GuideRequest, result: GuideResult, share: float) -> float:
        """Consistency in [0, 1]: the guide's probability of its own answer, given only this share of the
        visual tokens, the most important ones by ``result`` (arXiv 2412.03324, section 3.3).

        Raises:
            GuideError, RequestAborted: as :meth:`look`.
        """
        ...

    async def abort(self, request_id: str) -> None:
        """Abort a request, at whatever stage."""
        ...

    def stop(self, timeout: float | None = None) -> None:
        """End for good, and everything that it started.

        timeout: seconds for an end in good order before it is forced; None leaves that to the guide.
        """
        ...


class Probed(Guide, Protocol):
    """A guide that can be asked whether it answers, without a client's request."""

    async def probe(self) -> None:
        """Answer something small.

        Raises:
            GuideError: as :meth:`Guide.look`.
        """
        ...


def load_of(guide: Guide) -> tuple[int, int]:
    """Requests that a guide works on, and requests that wait for it; 0 of both where it does not count."""
    return guide.load if isinstance(guide, GuideWrapper) else (0, 0)


class GuideWrapper:
    """A guide that passes everything on to another one; wrappers override what they change."""

    def __init__(self, guide: Guide) -> None:
        self._guide = guide

    @property
    def context(self) -> int:
        return self._guide.context

    @property
    def alive(self) -> bool:
        return self._guide.alive

    @property
    def load(self) -> tuple[int, int]:
        """As :func:`load_of`."""
        return load_of(self._guide)

    def sees(self, request: GuideRequest) -> int:
        return self._guide.sees(request)

    async def start(self) -> None:
        await self._guide.start()

    async def look(self, request: GuideRequest, answer_tokens: int) -> GuideResult:
        return await self._guide.look(request, answer_tokens)

    async def confirm(self, request: GuideRequest, result: GuideResult, share: float) -> float:
        return await self._guide.confirm(request, result, share)

    async def abort(self, request_id: str) -> None:
        await self._guide.abort(request_id)

    def stop(self, timeout: float | None = None) -> None:
        self._guide.stop(timeout)
