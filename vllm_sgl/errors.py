"""Errors that cross rooms. Bad input is a plain ValueError and has no class here."""


class StartRefused(ValueError):
    """A server or an ``LLM`` cannot start as it was asked to. On vLLM's command line the text is all that is
    said; it names the engine, the flag and the remedy."""


class GuideError(RuntimeError):
    """The guide could not look at a request.

    reason: one of the ``GUIDE_*`` strings of :class:`vllm_sgl.core.Reason`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Unguidable(Exception):
    """A guide cannot look at this request, and has not failed: the large model answers it alone.

    reason: why it is bypassed, one of the strings of :class:`vllm_sgl.core.Reason`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RequestAborted(Exception):
    """A request was aborted by its id while the guide looked at it."""


class GuideFailedError(RuntimeError):
    """A guide failed under ``--sgl-on-error fail``: the request fails with it."""
