"""Errors that cross rooms. Bad input is a plain ValueError and has no class here."""


class StartRefused(ValueError):
    """A server or an ``LLM`` that cannot start with these settings. vLLM's command line prints the text and
    nothing else; it names the engine, the flag and the remedy."""


class GuideError(RuntimeError):
    """The guide could not look at a request.

    reason: one of the ``GUIDE_*`` strings of :class:`vllm_sgl.core.Reason`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Unguidable(Exception):
    """A request that a guide cannot look at, though it has not failed: the large model answers alone.

    reason: why it is bypassed, one of the strings of :class:`vllm_sgl.core.Reason`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RequestAborted(Exception):
    """A request was aborted by its id while the guide looked at it."""


class GuideFailedError(RuntimeError):
    """A guide failed under ``--sgl-on-error fail``: the request fails with it."""
