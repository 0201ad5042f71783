"""Clients that keep a server busy until they are told to stop, and remember what became of each request."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx

from tests.serve.asking import content
from tests.support.server import REQUEST_TIMEOUT, Server


@dataclass(frozen=True)
class Result:
    """What a client saw of one request: seconds on the monotonic clock, and the answer or the error.

    status: of the HTTP response, None where the connection ended without one. body: the JSON of the
    response, {} where it has none. error: what the client's library raised. turn: which client of several
    it was, and its how manieth request.
    """

    sent: float
    ended: float
    status: int | None
    body: dict[str, Any]
    error: Exception | None = None
    turn: tuple[int, int] = (0, 0)

    @property
    def finish_reason(self) -> str | None:
        return self.body["choices"][0]["finish_reason"] if self.status == 200 else None


def body(server: Server, question: str, *seeds: int, **options: Any) -> dict[str, Any]:
    """The JSON of a chat completion about random images; options are fields of the body."""
    messages = [{"role": "user", "content": content(question, seeds)}]
    return {"model": server.model, "messages": messages, "temperature": 0, **options}


def post(http: httpx.Client, json: dict[str, Any]) -> Result:
    """One chat completion; errors of the connection are a result too."""
    sent = time.monotonic()
    try:
        response = http.post("/v1/chat/completions", json=json)
    except httpx.HTTPError as error:
        return Result(sent, time.monotonic(), None, {}, error)
    kind = response.headers.get("content-type", "")
    return Result(
        sent, time.monotonic(), response.status_code, response.json() if "json" in kind else {}, None
    )


def connect(server: Server, timeout: float = REQUEST_TIMEOUT) -> httpx.Client:
    """One client with one connection that it keeps."""
    return httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=timeout)


class Busy:
    """``count`` clients, each sending one request after the other until a request fails or :meth:`stop`."""

    def __init__(self, server: Server, count: int, make: Callable[[int, int], dict[str, Any]]) -> None:
        """make: (client, turn) -> the JSON of that request."""
        self.results: list[Result] = []
        self._stop = threading.Event()
        self._server, self._make = server, make
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(count)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No further requests; those under way go on."""
        self._stop.set()

    def join(self, timeout: float) -> bool:
        """Whether every client came to its end within so many seconds."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _client(self, number: int) -> None:
        with connect(self._server) as http:
            turn = 0
            while not self._stop.is_set():
                result = replace(post(http, self._make(number, turn)), turn=(number, turn))
                self.results.append(result)
                turn += 1
                if result.status != 200 or result.finish_reason == "abort":
                    return


@contextmanager
def busy(server: Server, count: int, make: Callable[[int, int], dict[str, Any]]) -> Iterator[Busy]:
    """Clients at work while the ``with`` block runs."""
    clients = Busy(server, count, make)
    clients.start()
    try:
        yield clients
    finally:
        clients.stop()
        clients.join(REQUEST_TIMEOUT)


def at_once(
    server: Server, bodies: Sequence[dict[str, Any]], timeout: float = REQUEST_TIMEOUT
) -> list[Result]:
    """One request of each client, all sent at the same time; results in the same order."""
    results: list[Result | None] = [None] * len(bodies)

    def ask(place: int) -> None:
        with connect(server, timeout) as http:
            results[place] = post(http, bodies[place])

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
