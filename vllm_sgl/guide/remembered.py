"""Remembers finished passes of a guide; equal passes at the same time share one.

The small model answers greedily, so what it saw of a request is a function of that request.
"""

import asyncio
import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec

from vllm_sgl.core import GuideRequest, GuideResult
from vllm_sgl.errors import RequestAborted
from vllm_sgl.guide.base import Guide, GuideWrapper

Result = TypeVar("Result")

#: Visual tokens of all results together: importance takes 4 bytes for each.
MOST_VISUAL_TOKENS = 8 << 20
#: A client's parameters that change nothing of what the guide does: it takes its own.
_LEFT_OUT = frozenset(
    ("extra_args", "seed", "n", "temperature", "top_p", "top_k", "min_p", "stream_interval")
)


@dataclass
class _Shared:
    """A pass that runs. waiting: the requests that it is for."""

    task: "asyncio.Task[Any]"
    waiting: list[tuple[str, "asyncio.Future[Any]"]] = field(default_factory=list)


class Remembered(GuideWrapper):
    """
    Args:
        guide: sees of a request what :func:`_prompt` reads of it, and no more: a guide that renders a
            conversation anew does not.
        most: results that are remembered.
    """

    def __init__(self, guide: Guide, most: int) -> None:
        super().__init__(guide)
        self._most = most
        self._known: OrderedDict[bytes, tuple[Any, int]] = OrderedDict()  # result, visual tokens
        self._visual_tokens = 0
        self._running: dict[bytes, _Shared] = {}

    async def look(self, request: GuideRequest, answer_tokens: int) -> GuideResult:
        def start() -> Coroutine[Any, Any, GuideResult]:
            return self._guide.look(request, answer_tokens)

        key = look_key(request, answer_tokens)
        result = await self._once(key, request, sum(request.visual_tokens), start)
        # Each caller's own: offline, a program may change the tensors of its report.
        return replace(result, importance=[one.clone() for one in result.importance])

    async def confirm(self, request: GuideRequest, result: GuideResult, share: float) -> float:
        def start() -> Coroutine[Any, Any, float]:
            return self._guide.confirm(request, result, share)

        return await self._once(confirm_key(request, result, share), request, 0, start)

    async def abort(self, request_id: str) -> None:
        """Its pass goes on if it is for others, too."""
        for shared in self._running.values():
            for waiting, outcome in shared.waiting:
                if waiting == request_id and not outcome.done():
                    outcome.set_exception(RequestAborted(f"guide request {request_id} was aborted"))

    async def _once(
        self,
        key: bytes,
        request: GuideRequest,
        visual_tokens: int,
        start: Callable[[], Coroutine[Any, Any, Result]],
    ) -> Result:
        if key in self._known:
            self._known.move_to_end(key)
            known: Result = self._known[key][0]
            return known
        shared = self._running.get(key)
        if shared is None:
            shared = self._running[key] = _Shared(asyncio.create_task(start()))
            shared.task.add_done_callback(lambda task: self._finish(key, visual_tokens, task))
        outcome: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        entry = (request.id, outcome)
        shared.waiting.append(entry)
        try:
            return await outcome
        finally:
            shared.waiting.remove(entry)
            if not shared.waiting and not shared.task.done():
                if self._running.get(key) is shared:  # later requests begin anew
                    del self._running[key]
                shared.task.cancel()

    def _finish(self, key: bytes, visual_tokens: int, task: "asyncio.Task[Any]") -> None:
        shared = self._running.get(key)
        waiting = []
        if shared is not None and shared.task is task:
            waiting = [outcome for _, outcome in shared.waiting if not outcome.done()]
            del self._running[key]
        if task.cancelled():
            for outcome in waiting:
                outcome.cancel()
            return
        if (error := task.exception()) is not None:
            for outcome in waiting:
                outcome.set_exception(error)
            return
        self._remember(key, task.result(), visual_tokens)
        for outcome in waiting:
            outcome.set_result(task.result())

    def _remember(self, key: bytes, result: Any, visual_tokens: int) -> None:
        self._known[key] = result, visual_tokens
        self._visual_tokens += visual_tokens
        while len(self._known) > self._most or self._visual_tokens > MOST_VISUAL_TOKENS:
            _, (_, forgotten) = self._known.popitem(last=False)
            self._visual_tokens -= forgotten


def look_key(request: GuideRequest, answer_tokens: int) -> bytes:
    """Names a look by everything that it depends on."""
    digest = _prompt(request)
    params = msgspec.structs.asdict(request.params)  # extra_args may hold what no encoder knows
    asked = msgspec.to_builtins({name: value for name, value in params.items() if name not in _LEFT_OUT})
    limits = (min(answer_tokens, request.max_tokens), request.max_tokens)
    digest.update(repr((limits, request.query_rows, sorted(asked.items()))).encode())
    return b"look" + digest.digest()


def confirm_key(request: GuideRequest, result: GuideResult, share: float) -> bytes:
    """Names a consistency pass by everything that it depends on."""
    digest = _prompt(request)
    digest.update(repr((share, tuple(result.answer.token_ids))).encode())
    for importance in result.importance:
        digest.update(importance.numpy().tobytes())
    return b"confirm" + digest.digest()


def _prompt(request: GuideRequest) -> "hashlib._Hash":
    """A digest of token ids, of media by name and place, and of the cache salt, which keeps clients apart."""
    prompt = request.prompt
    digest = hashlib.sha256(array("q", prompt["prompt_token_ids"]).tobytes())
    media = [
        (modality, name, place.offset, place.length)
        for modality, places in sorted(prompt["mm_placeholders"].items())
        for name, place in zip(prompt["mm_hashes"][modality], places, strict=True)
    ]
    digest.update(repr((media, prompt.get("cache_salt"))).encode())
    return digest
