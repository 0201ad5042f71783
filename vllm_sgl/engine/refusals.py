"""Which of the two engines did not start, and what to do about it."""

from collections.abc import Iterator
from contextlib import contextmanager

from vllm_sgl.errors import StartRefused
from vllm_sgl.host.request.output import EngineDeadError


@contextmanager
def refusing() -> Iterator[None]:
    """What is wrong with the settings or the pair: the text says it all."""
    try:
        yield
    except ValueError as error:
        raise StartRefused(str(error)) from error


@contextmanager
def starting_small(model: str) -> Iterator[None]:
    """The small engine's processes start inside the block."""
    remedy = "give another --sgl-small or --sgl-small-args, or serve without SGL"
    with _starting(f"small engine (--sgl-small {model})", "SmallEngineCore", remedy):
        yield


@contextmanager
def starting_large(model: str) -> Iterator[None]:
    """The large engine's processes start inside the block."""
    remedy = "it would not start without --sgl-small either, unless memory is what it lacks"
    with _starting(f"large engine ({model})", "EngineCore", remedy):
        yield


@contextmanager
def preparing_guide(model: str) -> Iterator[None]:
    """Both engines run, and the small one gets ready for its first request inside the block."""
    try:
        yield
    except EngineDeadError as error:  # the small engine's death is a failure of the guide
        raise StartRefused(
            "the large engine died before the first request. The reason is in the lines above that begin "
            "with (EngineCore pid=...), or memory was what it lacked"
        ) from error
    except Exception as error:  # a call of an engine's method fails with no class of its own
        raise StartRefused(
            f"the small engine (--sgl-small {model}) started, but cannot guide: "
            f"{str(error).removeprefix(_CALL_FAILED) or type(error).__name__}. What its process has logged "
            "of it begins with (SmallEngineCore pid=...): give another --sgl-small or --sgl-small-args, or "
            "serve without SGL"
        ) from error


#: vLLM's words before those of a worker.
_CALL_FAILED = "Call to collective_rpc method failed: "


@contextmanager
def _starting(engine: str, process: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # vLLM's word for a core process that ended; that one has logged why
        raise StartRefused(
            f"the {engine} did not start ({error}). The reason is in the lines above that begin with "
            f"({process} pid=...): {remedy}"
        ) from error
