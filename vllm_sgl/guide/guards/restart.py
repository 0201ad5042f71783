"""Restarts a guide that dies.

Imports neither torch nor vLLM.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from vllm_sgl.core import GuideRequest, GuideResult
from vllm_sgl.guide.base import Probed
from vllm_sgl.guide.guards.background import Background, in_daemon

logger = logging.getLogger("vllm.vllm_sgl.revived")

#: Seconds between two looks at whether the guide lives.
WATCH = 1.0
#: Starts in a row, and seconds before the first of them; before each further one twice as many.
ATTEMPTS = 5
PAUSE = 1.0
#: Seconds after which a guide counts as steady, and all attempts are available again.
STEADY = 600.0

AnyProbed = TypeVar("AnyProbed", bound=Probed)


class Revived(Generic[AnyProbed]):
    """Passes requests on to a guide; where it dies, it is made anew in the background. Meanwhile requests
    fail as the dead guide fails them.

    Makes :data:`ATTEMPTS` attempts with growing pauses. A guide that dies again before it was steady uses up
    the same attempts, so that a request that kills it cannot keep the machine busy with starts.

    guide: the one that is asked now.

    Args:
        first: the guide that runs already; its ``start`` ends by itself, however long that takes.
        make: blocks until there is another one like it; called in a thread.
        give_up: ends a ``make`` that is under way in another thread, which raises then.
        sleep, clock: ``asyncio.sleep`` and ``time.monotonic``, or a test's.
    """

    def __init__(
        self,
        first: AnyProbed,
        make: Callable[[], AnyProbed],
        give_up: Callable[[], None] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.guide = first
        self._make = make
        self._give_up = give_up
        self._sleep = sleep
        self._clock = clock
        self._attempts = 0
        self._watching = Background()
        self._lock = threading.Lock()
        self._stopped = False
        self._starting: AnyProbed | None = None

    @property
    def context(self) -> int:
        return self.guide.context

    @property
    def alive(self) -> bool:
        return self.guide.alive

    def sees(self, request: GuideRequest) -> int:
        return self.guide.sees(request)

    async def start(self) -> None:
        await self.guide.start()
        self._watching.start(self._watch())

    async def look(self, request: GuideRequest, answer_tokens: int) -> GuideResult:
        return await self.guide.look(request, answer_tokens)

    async def confirm(self, request: GuideRequest, result: GuideResult, share: float) -> float:
        return await self.guide.confirm(request, result, share)

    async def probe(self) -> None:
        await self.guide.probe()

    async def abort(self, request_id: str) -> None:
        await self.guide.abort(request_id)

    def stop(self, timeout: float | None = None) -> None:
        """From any thread. A start under way is given up."""
        with self._lock:
            self._stopped = True
            starting = self._starting
        self._watching.end()
        self._give_up()
        self.guide.stop(timeout)
        if starting is not None:
            starting.stop(0)

    async def _watch(self) -> None:
        since = self._clock()
        while True:
            await self._sleep(WATCH)
            if self.guide.alive:
                if self._clock() - since >= STEADY:
                    self._attempts = 0
                continue
            died = self._clock()
            logger.error("SGL: the small engine died; requests go on unguided until it runs again")
            if not await self._revive():
                logger.error(
                    "SGL: the small engine died or did not start %d times in a row and is left alone: "
                    "requests go on unguided until the server is restarted", self._attempts,
                )  # fmt: skip
                return
            since = self._clock()
            logger.warning(
                "SGL: the small engine runs again, after %.0f s; requests are guided", since - died
            )

    async def _revive(self) -> bool:
        """Whether there is a guide again."""
        while self._attempts < ATTEMPTS:
            await self._sleep(PAUSE * 2**self._attempts)
            self._attempts += 1
            try:
                fresh = await in_daemon(self._replace)
                await fresh.start()
            except Exception as error:  # whatever an engine's start may fail with
                said = f"{type(error).__name__}: {error}"
                logger.warning("SGL: start %d of %d failed: %s", self._attempts, ATTEMPTS, said)
                await in_daemon(self._discard)
                continue
            with self._lock:
                self.guide, self._starting = fresh, None
            return True
        return False

    def _replace(self) -> AnyProbed:
        """Stop the dead guide, whose remains may hold memory, and make another one. Blocks."""
        _end(self.guide)
        if self._stopped:
            raise RuntimeError("stopped before the guide was started again")
        fresh = self._make()
        with self._lock:
            if not self._stopped:
                self._starting = fresh
                return fresh
        fresh.stop(0)
        raise RuntimeError("stopped while the guide was started again")

    def _discard(self) -> None:
        """End a guide that did not get ready. Blocks."""
        with self._lock:
            fresh, self._starting = self._starting, None
        if fresh is not None:
            _end(fresh)


def _end(guide: Probed) -> None:
    """Blocks. What is broken may not end well either; another one is started all the same."""
    try:
        guide.stop(0)
    except Exception as error:
        logger.warning("SGL: a small engine that does not run does not end either: %r", error)
