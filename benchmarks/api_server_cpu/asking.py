"""Asking two servers, and what that cost their processes."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import psutil

from benchmarks.support.load import Reply, ask, body, content
from benchmarks.support.server import Server
from benchmarks.support.workspace import BenchmarkError

from .clocks import METRIC
from .pair import PAIR
from .parts import PLACES, REST, TOTAL, ZEROMQ, ZEROMQ_THREADS

_CLIENTS, _MAX_TOKENS, _IDLE_SECONDS = 2, 4, 2.0


@dataclass(frozen=True)
class Setting:
    """xargs: a request's own settings. decision: what SGL reports; None for plain vLLM. scored: whether the
    guide looks a second time. known: whether the processor cache has the image."""

    name: str
    side: Literal["plain", "guided"]
    xargs: Mapping[str, Any]
    decision: str | None = None
    scored: bool = False
    known: bool = False


_OFF: dict[str, Any] = {"sgl_exit_threshold": "off"}
SETTINGS = (
    Setting("plain", "plain", {}),
    Setting("R=1", "guided", {"sgl_retention": 1, **_OFF}, "bypass"),
    Setting("R=0.35", "guided", {"sgl_retention": 0.35, **_OFF}, "prune"),
    Setting(
        "R=0.35, tiles", "guided", {"sgl_retention": 0.35, "sgl_policy": "tiles:0.002", **_OFF}, "prune"
    ),
    Setting("exit", "guided", {"sgl_retention": 0.35, "sgl_exit_threshold": 0}, "exit", True),
    Setting("plain, known image", "plain", {}, known=True),
    Setting("R=0.35, known image", "guided", {"sgl_retention": 0.35, **_OFF}, "prune", known=True),
)  # fmt: skip


class Asking:
    """requests: per setting and round."""

    def __init__(self, servers: Mapping[str, Server], requests: int) -> None:
        self._servers, self._requests = servers, requests
        self._numbers = count()

    def warm_up(self) -> None:
        for setting in SETTINGS:
            self._ask(setting, 2)

    def round(self, number: int) -> dict[str, dict[str, float]]:
        """Milliseconds per request, by setting and part. Settings start elsewhere in each round."""
        turn = number % len(SETTINGS)
        return {one.name: self._spent(one) for one in (*SETTINGS[turn:], *SETTINGS[:turn])}

    def _spent(self, setting: Setting) -> dict[str, float]:
        server = self._servers[setting.side]
        idle = self._idle(server)
        began, before, parts_before = time.perf_counter(), cpu_seconds(server.pid), server.metrics()
        requests = self._ask(setting, self._requests)
        after, parts_after = cpu_seconds(server.pid), server.metrics()
        seconds = time.perf_counter() - began
        found = {part: parts_after.since(parts_before, METRIC, part=part) for part in PLACES}
        found[ZEROMQ] = after.zeromq - before.zeromq
        total = after.all - before.all - idle * seconds
        found[REST] = total - sum(found.values())
        return {part: 1000 * value / requests for part, value in {TOTAL: total, **found}.items()}

    def _idle(self, server: Server) -> float:
        """CPU seconds per second of a server that nobody asks anything."""
        before = cpu_seconds(server.pid)
        time.sleep(_IDLE_SECONDS)
        return (cpu_seconds(server.pid).all - before.all) / _IDLE_SECONDS

    def _ask(self, setting: Setting, requests: int) -> int:
        """How many requests were asked, all of them answered as the setting says.

        Raises:
            BenchmarkError: where one was answered otherwise.
        """
        first, *others = (content(next(self._numbers), PAIR.image) for _ in range(requests))
        server = self._servers[setting.side]
        asked = [first, *([[first[0], other[1]] for other in others] if setting.known else others)]
        made = [body(one, _MAX_TOKENS, dict(setting.xargs), fixed_length=False) for one in asked]
        if setting.known:
            ask(server, made[:1], 1)
            made = made[1:]
        check(setting, ask(server, made, _CLIENTS)[0])
        return len(made)


def check(setting: Setting, replies: Sequence[Reply]) -> None:
    """
    Raises:
        BenchmarkError: where a reply does not report what its setting says.
    """
    for reply in replies:
        sgl = reply.sgl or {}
        found = sgl.get("decision"), sgl.get("consistency") is not None
        if found != (setting.decision, setting.scored):
            raise BenchmarkError(
                f"{setting.name}: expected decision {setting.decision}, "
                f"{'with' if setting.scored else 'without'} a second look; the report says {reply.sgl}"
            )


@dataclass(frozen=True)
class CpuSeconds:
    """all: of a process, not of its children. zeromq: of ZeroMQ's threads."""

    all: float
    zeromq: float


def cpu_seconds(pid: int) -> CpuSeconds:
    process = psutil.Process(pid)
    times = process.cpu_times()
    zeromq = sum(
        thread.user_time + thread.system_time
        for thread in process.threads()
        if _thread_name(pid, thread.id).startswith(ZEROMQ_THREADS)
    )
    return CpuSeconds(times.user + times.system, zeromq)


def _thread_name(pid: int, thread: int) -> str:
    try:
        return Path(f"/proc/{pid}/task/{thread}/comm").read_text()
    except OSError:  # it has ended
        return ""
