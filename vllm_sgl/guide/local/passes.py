"""Runs passes in the small engine: every failure is a ``GuideError``, and nothing waits for ever."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from vllm import SamplingParams
from vllm.exceptions import VLLMClientError
from vllm.outputs import RequestOutput

from vllm_sgl.core import Reason, RenderedPrompt
from vllm_sgl.errors import GuideError, RequestAborted
from vllm_sgl.guide.local.mass import Recorded
from vllm_sgl.host.request.liveness import while_alive
from vllm_sgl.host.request.output import EngineDeadError

Result = TypeVar("Result")


class Passes:
    """
    Args:
        engine: the small engine, an ``AsyncLLM``.
        timeout: seconds before a pass counts as failed.
        patient: then it fails only if the engine does not answer a call either, for as long again: it is
            slow, not silent.
    """

    def __init__(self, engine: Any, timeout: float, patient: bool = False) -> None:
        self._engine = engine
        self._timeout = timeout
        self._patient = patient
        self._ping: asyncio.Future[Any] | None = None

    @property
    def alive(self) -> bool:
        return not self._engine.errored

    async def run(
        self, prompt: RenderedPrompt, params: SamplingParams, id: str, priority: int
    ) -> RequestOutput:
        """The finished output of one request.

        Raises:
            RequestAborted: when it was aborted by its id.
        """
        final = None
        async for output in self._engine.generate(prompt, params, id, priority=priority):
            final = output
        if final is None or final.outputs[0].finish_reason == "abort":
            raise RequestAborted(f"guide request {id} was aborted")
        return final

    async def take(self, keys: list[str]) -> list[list[Recorded | None]]:
        """The workers' records, by worker and key, in one RPC."""
        call = self._engine.collective_rpc("sgl_take", timeout=self._timeout, args=(keys,))
        taken: list[list[Recorded | None]] = await while_alive(self._engine, call)
        return taken

    async def guarded(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of some passes, within the time limit; cancellation stays cancellation.

        Raises:
            GuideError: when they fail, are too slow, or the engine is dead.
            RequestAborted: as :meth:`run`.
        """
        if not self.alive:
            work.close()
            raise GuideError(Reason.GUIDE_DEAD, "the small engine is dead")
        start = time.monotonic()
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait([task], timeout=self._timeout))[0]:
                if not (self._patient and await self._answers()):
                    if not self.alive:
                        raise EngineDeadError()
                    waited = time.monotonic() - start
                    raise GuideError(Reason.GUIDE_TIMEOUT, f"no answer after {waited:.1f} s")
            return task.result()
        except (GuideError, RequestAborted):
            raise
        except EngineDeadError as error:
            raise GuideError(Reason.GUIDE_DEAD, "the small engine died") from error
        except VLLMClientError as error:
            raise GuideError(Reason.GUIDE_REFUSED, f"not for the small engine: {error}") from error
        except Exception as error:
            reason = Reason.GUIDE_FAILED if self.alive else Reason.GUIDE_DEAD
            raise GuideError(reason, f"{type(error).__name__}: {error}") from error
        finally:
            task.cancel()

    async def _answers(self) -> bool:
        """Whether the engine answers a call, which it does between two steps. Passes share one call."""
        if self._ping is None or self._ping.done():
            self._ping = asyncio.ensure_future(self.take([]))
            self._ping.add_done_callback(lambda ping: ping.cancelled() or ping.exception())
        await asyncio.wait([self._ping], timeout=self._timeout)
        return self._ping.done() and self._ping.exception() is None
