"""Work beside the requests: a task that any thread can end, and a daemon thread for blocking calls."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

Result = TypeVar("Result")


class Background:
    """One task at a time, in the event loop in which it was started."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(work)

    def end(self) -> None:
        """Cancel it, from any thread; does nothing where none was started."""
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # the loop is closed, and the task ended with it
                self._loop.call_soon_threadsafe(self._task.cancel)


async def in_daemon(function: Callable[[], Result]) -> Result:
    """The result of a blocking function. Unlike with ``asyncio.to_thread``, the process can end without
    waiting for it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def deliver(setter: Callable[[Any], None], value: object) -> None:
        if not future.done():
            setter(value)

    def run() -> None:
        setter: Callable[[Any], None]
        try:
            value: object = function()
            setter = future.set_result
        except Exception as error:
            value, setter = error, future.set_exception
        with suppress(RuntimeError):  # the loop is closed: no one awaits the result
            loop.call_soon_threadsafe(deliver, setter, value)

    threading.Thread(target=run, name="sgl-background", daemon=True).start()
    return await future
