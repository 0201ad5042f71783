"""Waits for an engine that may die, hang, or be shut down.

Symptom without ``fail_waiting``: ``AsyncLLM.shutdown`` ends the engine and then cancels the task that hands
its outputs to requests. Two callbacks of one loop race: only if that task first reads that the engine is
gone does it tell the requests; otherwise they wait for ever, and a server that is being stopped waits for
them. Plain vLLM 0.32 does the same, if less often. Calls of ``collective_rpc`` and the like are never told,
neither of a shutdown nor of a death (``while_alive``). Remove when ``AsyncLLM`` fails what waits.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from vllm import envs
from vllm.utils.async_utils import in_loop
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

__all__ = ["fail_waiting", "in_loop", "loop_of", "ready_in_time", "while_alive"]

#: How often a pending call checks that the engine still lives.
DEATH_CHECK_SECONDS = 0.2


def loop_of(engine: AsyncLLM) -> asyncio.AbstractEventLoop | None:
    """The event loop that an engine's requests wait in; None where it never ran, or runs no more."""
    handler = getattr(engine, "output_handler", None)  # missing where the engine failed to start
    loop = handler.get_loop() if handler is not None else None
    return loop if loop is not None and loop.is_running() else None


def fail_waiting(engine: AsyncLLM, error: Exception) -> None:
    """Raise ``error`` in every ``generate`` and every call of a method that waits for ``engine``.

    To be called in the engine's loop, after ``engine.shutdown()``: what comes later is refused by vLLM.
    """
    engine.output_processor.propagate_error(error)
    for call in list(engine.engine_core.utility_results.values()):
        if not call.done():
            call.set_exception(error)
            call.exception()  # its caller may have left


async def while_alive(engine: AsyncLLM, call: Awaitable[Any]) -> Any:
    """The result of a call of one of the engine's methods.

    Raises:
        EngineDeadError: when the engine dies before it answers.
    """
    pending = asyncio.ensure_future(call)
    try:
        while not (await asyncio.wait([pending], timeout=DEATH_CHECK_SECONDS))[0]:
            if engine.errored:
                raise EngineDeadError
        return pending.result()
    finally:
        pending.cancel()


@asynccontextmanager
async def ready_in_time(what: str) -> AsyncIterator[None]:
    """The block that gets an engine ready for its first request may take as long as vLLM lets it start.

    Raises:
        TimeoutError: when it takes longer; names the engine and the way out.
        RuntimeError: when the engine dies meanwhile.
    """
    seconds = envs.VLLM_ENGINE_READY_TIMEOUT_S
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            yield
    except EngineDeadError:
        raise RuntimeError(
            f"{what} died before the first request; its last lines in the log say why"
        ) from None
    except TimeoutError:
        if not scope.expired():
            raise
        raise TimeoutError(
            f"{what} started, but was not ready for requests after {seconds} s: it hangs, or the machine is "
            "very slow. Look for its last lines in the log; VLLM_ENGINE_READY_TIMEOUT_S=<seconds> gives it "
            "more time"
        ) from None
