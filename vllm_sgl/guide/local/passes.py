"""Running a pass in the small engine: every failure is a ``GuideError``, and nothing waits for ever."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from vllm import SamplingParams
from vllm.outputs import RequestOutput

from vllm_sgl.core import Reason, RenderedPrompt
from vllm_sgl.errors import GuideError, RequestAborted
from vllm_sgl.guide.local.mass import Recorded
from vllm_sgl.host.output import EngineDeadError
from vllm_sgl.host.waiting import while_alive

Result = TypeVar("Result")


class Passes:
    """
    Args:
        engine: the small engine, an ``AsyncLLM``.
        timeout: seconds before a pass counts as failed.
    """

    def __init__(self, engine: Any, timeout: float) -> None:
        self._engine = engine
        self._timeout = timeout

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
        """What the workers recorded, by worker and key: one RPC."""
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
        try:
            return await asyncio.wait_for(work, self._timeout)
        except (GuideError, RequestAborted):
            raise
        except TimeoutError:
            waited = time.monotonic() - start
            raise GuideError(Reason.GUIDE_TIMEOUT, f"no answer after {waited:.1f} s") from None
        except EngineDeadError as error:
            raise GuideError(Reason.GUIDE_DEAD, "the small engine died") from error
        except Exception as error:
            reason = Reason.GUIDE_FAILED if self.alive else Reason.GUIDE_DEAD
            raise GuideError(reason, f"{type(error).__name__}: {error}") from error
