"""Ends both engines: running requests get an answer or an error at once, and none waits."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any

from vllm.exceptions import GracefulHTTPError

from vllm_sgl.host.request.liveness import fail_waiting, in_loop, loop_of

#: How often a draining shutdown looks whether requests are left.
_DRAIN_CHECK_SECONDS = 0.02

#: Ends one engine; takes the seconds that its process gets to end by itself, None for vLLM's default.
End = Callable[[float | None], None]


class ShuttingDownError(GracefulHTTPError):
    """A request that a shutdown cuts short or that arrived after its begin: 503 over HTTP."""

    def __init__(self) -> None:
        super().__init__(
            "The server is shutting down. Please send the request to another instance.",
            HTTPStatus.SERVICE_UNAVAILABLE,
        )


class Shutdown:
    """One client's way from serving to its end.

    Requests enter :meth:`request`, and :meth:`interruptible` where they wait for the small engine;
    :meth:`run` ends both engines. Everything but ``run`` belongs to the client's event loop.
    """

    def __init__(self) -> None:
        self.begun = False
        self._requests = 0
        self._scopes: set[asyncio.Timeout] = set()

    @contextmanager
    def request(self) -> Iterator[None]:
        """A request, from its arrival to its last output: a draining shutdown waits for it.

        Raises:
            ShuttingDownError: where the shutdown has begun.
        """
        if self.begun:
            raise ShuttingDownError
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    @asynccontextmanager
    async def interruptible(self) -> AsyncIterator[None]:
        """The block is cancelled when the engines end.

        Raises:
            ShuttingDownError: in place of the cancellation.
        """
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._scopes.add(scope)
                try:
                    yield
                finally:
                    self._scopes.discard(scope)
        except TimeoutError:
            if scope.expired():
                raise ShuttingDownError from None
            raise

    def run(self, engines: Sequence[tuple[Any, End]], timeout: float | None) -> None:
        """End the engines side by side; blocks until their processes are gone.

        Args:
            engines: each ``AsyncLLM`` with what ends it; None for one that requests only wait for inside
                :meth:`interruptible`.
            timeout: seconds in which requests under way may come to their end first; 0 and None end them
                at once, and so does a call from inside the event loop that they need.
        """
        self.begun = True
        waited_for = {engine: loop for engine, _ in engines if engine and (loop := loop_of(engine))}
        if timeout and not any(map(in_loop, waited_for.values())):
            timeout = self._drain(timeout)
        for loop in set(waited_for.values()):
            _call(loop, self._interrupt)
        # Side by side: each waits for its processes.
        threads = [
            threading.Thread(target=end, args=(timeout,), name="sgl-shutdown") for _, end in engines[1:]
        ]
        for thread in threads:
            thread.start()
        engines[0][1](timeout)
        for thread in threads:
            thread.join()
        for engine, loop in waited_for.items():
            _call(loop, fail_waiting, engine, ShuttingDownError())

    def _drain(self, timeout: float) -> float:
        """Wait for the requests under way; the seconds that are left."""
        deadline = time.monotonic() + timeout
        while self._requests and time.monotonic() < deadline:
            time.sleep(_DRAIN_CHECK_SECONDS)
        return max(0.0, deadline - time.monotonic())

    def _interrupt(self) -> None:
        now = asyncio.get_running_loop().time()
        for scope in self._scopes:
            scope.reschedule(now)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    """Run in the loop: now where that is here, else soon."""
    if in_loop(loop):
        function(*args)
    else:
        loop.call_soon_threadsafe(function, *args)
