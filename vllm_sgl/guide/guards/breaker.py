"""A circuit breaker: requests skip a guide that has timed out several times in a row, until it answers.

Imports neither torch nor vLLM.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from vllm_sgl.core import GuideRequest, GuideResult, Reason
from vllm_sgl.errors import GuideError, RequestAborted
from vllm_sgl.guide.base import Guide, GuideWrapper
from vllm_sgl.guide.guards.background import Background

logger = logging.getLogger("vllm.vllm_sgl.breaker")

#: Time-outs in a row after which the guide counts as silent.
SILENCES = 3
#: Seconds from one probe to the next. Doubled, up to the second figure, each time that a guide falls silent
#: again before it has answered one request: it may answer probes, but no requests.
PAUSE = 1.0
LONGEST_PAUSE = 60.0

Result = TypeVar("Result")


class Breaker(GuideWrapper):
    """Passes requests on to a guide until it is silent :data:`SILENCES` times in a row; then none, until it
    answers a probe.

    When it opens, requests that still wait for the guide fail too. After a successful probe, one trial
    request decides whether the breaker closes; the others skip the guide meanwhile. If the trial times out,
    the breaker opens again, and no other request has waited.

    It counts requests, not passes: equal requests that share one slow pass (:mod:`vllm_sgl.guide.remembered`)
    count one silence each, and one that joins a pass late times out with it.

    Args:
        probe: asks the guide something small; raises ``GuideError`` where it does not answer.
        sleep: ``asyncio.sleep``, or a test's.
    """

    def __init__(
        self,
        guide: Guide,
        probe: Callable[[], Awaitable[None]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(guide)
        self._probe = probe
        self._sleep = sleep
        self._silences = 0
        self._pause = PAUSE
        self._open: GuideError | None = None
        self._unproven = False  # a probe was answered, and no request since
        self._trying = False  # the request that decides is with the guide
        self._opening: asyncio.Future[None] | None = None
        self._probing = Background()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def alive(self) -> bool:
        return self._open is None and self._guide.alive

    async def look(self, request: GuideRequest, answer_tokens: int) -> GuideResult:
        return await self._through(self._guide.look(request, answer_tokens))

    async def confirm(self, request: GuideRequest, result: GuideResult, share: float) -> float:
        return await self._through(self._guide.confirm(request, result, share))

    def stop(self, timeout: float | None = None) -> None:
        """From any thread; requests that still wait for the guide fail."""
        self._probing.end()
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, so no request waits
                self._loop.call_soon_threadsafe(
                    self._cut, GuideError(Reason.GUIDE_DEAD, "the guide was stopped")
                )
        self._guide.stop(timeout)

    async def _through(self, work: Coroutine[Any, Any, Result]) -> Result:
        if self._open is not None:
            work.close()
            raise GuideError(self._open.reason, str(self._open))
        deciding = self._unproven
        if deciding and self._trying:
            work.close()
            raise GuideError(Reason.GUIDE_UNWELL, "the guide was silent, and is tried with one request now")
        self._trying = deciding
        self._loop = asyncio.get_running_loop()
        if self._opening is None:
            self._opening = self._loop.create_future()
        task = self._loop.create_task(work)
        task.add_done_callback(_retrieve)
        try:
            await asyncio.wait((task, self._opening), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                assert self._open is not None
                raise GuideError(self._open.reason, str(self._open))
            result = task.result()
        except GuideError as error:
            if error.reason == Reason.GUIDE_TIMEOUT:
                self._count_silence(error)
            raise
        finally:
            task.cancel()
            if deciding:
                self._trying = False
        self._silences, self._pause, self._unproven = 0, PAUSE, False
        return result

    def _count_silence(self, error: GuideError) -> None:
        self._silences += 1
        if self._silences < SILENCES or self._open is not None:
            return
        self._unproven = False
        logger.warning(
            "SGL: the guide does not answer (%d times in a row, last: %s); requests go on unguided until it "
            "does", self._silences, error,
        )  # fmt: skip
        self._cut(GuideError(Reason.GUIDE_UNWELL, "the guide did not answer, and is left alone for now"))
        self._probing.start(self._probe_until_well())

    def _cut(self, why: GuideError) -> None:
        self._open = why
        if self._opening is not None and not self._opening.done():
            self._opening.set_result(None)

    async def _probe_until_well(self) -> None:
        silent_since = time.monotonic()
        while True:
            await self._sleep(self._pause)
            try:
                await self._probe()
            except (GuideError, RequestAborted) as error:
                logger.debug("SGL: the guide does not answer a probe: %s", error)
            else:
                break
        self._silences, self._unproven = SILENCES - 1, True
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._open = self._opening = None
        silent = time.monotonic() - silent_since
        logger.warning("SGL: the guide answers again, after %.0f s; requests are guided", silent)


def _retrieve(task: "asyncio.Task[Any]") -> None:
    """Read the exception of a task that was given up, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()
