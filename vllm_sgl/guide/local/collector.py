"""Fetches importance from the small engine: one RPC at a time, for all requests that wait."""

import asyncio
from collections.abc import Awaitable, Callable

from vllm_sgl.guide.local.mass import Recorded

#: keys -> per worker, per key: what ``GuideWorkerExtension.sgl_take`` returns.
Take = Callable[[list[str]], Awaitable[list[list[Recorded | None]]]]


class Collector:
    """Batches ``take`` calls. An RPC interrupts the small engine between two steps, so one RPC per
    request would cost a busy engine one interruption per request."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._waiting: dict[str, asyncio.Future[list[Recorded | None]]] = {}
        self._worker: asyncio.Task[None] | None = None

    async def take(self, key: str) -> list[Recorded | None]:
        """The workers' records for ``key``. An error of the RPC is raised in every request of the batch."""
        future: asyncio.Future[list[Recorded | None]] = asyncio.get_running_loop().create_future()
        self._waiting[key] = future
        self._wake()
        return await future

    def discard(self, key: str) -> None:
        """Forget ``key`` without waiting: its request was aborted."""
        self._waiting.setdefault(key, asyncio.get_running_loop().create_future())
        self._wake()

    def _wake(self) -> None:
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, {}
            try:
                per_worker = await self._take(list(batch))
            except Exception as error:
                for future in batch.values():
                    if not future.done():
                        future.set_exception(error)
                        future.exception()  # the request may be gone: mark the exception as read
                continue
            for i, future in enumerate(batch.values()):
                if not future.done():
                    future.set_result([entries[i] for entries in per_worker])
