"""One run: servers up, plain vLLM's capacity, every case sent to every setting in turn, tables."""

import asyncio
import itertools
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from tqdm import tqdm

from benchmarks import report
from benchmarks.support.pair import Pair, layouts
from benchmarks.support.server import Server, running
from benchmarks.support.workspace import BenchmarkError, Workspace

from .client import Sent, send
from .figures import Run, rows
from .settings import PLAIN, Setting, in_turn, variants
from .traffic import SHAPES, Amount, Case
from .traffic.base import side_by_side
from .traffic.requests import fresh, text_only

#: Whose capacity it is: more clients gain nothing, since an engine answers 16 at a time.
_CLIENTS = 16
#: A goal is this many times plain vLLM's answer to one client.
_GOAL = 2
#: Of questions about new images, those that plain vLLM must answer rightly: the shipped model has 97 %.
_READS = 0.75


@dataclass
class Benchmark:
    """shapes: names. amount: its capacity is measured where it is 0. goal: seconds; 0 to measure it."""

    workspace: Workspace
    pair: Pair
    shapes: Sequence[str]
    settings: list[Setting]
    amount: Amount
    goal: float = 0.0
    runs: list[Run] = field(default_factory=list)
    _marks: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _servers: dict[tuple[str, ...] | None, Server] = field(default_factory=dict)

    @contextmanager
    def servers(self) -> Iterator[None]:
        """All servers, while the ``with`` block runs; plain vLLM's under None.

        Raises:
            BenchmarkError: where one does not start.
        """
        self.pair.write(self.workspace.work)
        self._servers = {None: self.pair.server(self.workspace, "plain")}
        for flags, variant in variants(self.settings).items():
            self._servers[flags] = self.pair.server(self.workspace, "guided", variant=variant)
        report.progress(f"starting plain and {len(self._servers) - 1} of SGL")
        with running(*self._servers.values()):
            yield

    def measure(self) -> None:
        """Warm up, then every case of every shape.

        Raises:
            BenchmarkError: where a server refuses a request, or plain vLLM does not read.
        """
        for setting in [PLAIN, *self.settings]:
            self._send(self._warm_up(setting), setting)
        self._calibrate()
        for name in self.shapes:
            cases = list(SHAPES[name].cases(self.amount))
            with tqdm(total=len(cases) * (1 + len(self.settings)), unit="case", desc=name) as bar:
                for number, case in enumerate(cases):
                    for setting in in_turn(self.settings, number):
                        sent = self._send(case, setting)
                        self.runs.append(Run(name, case.group, number, setting.name, case.whole, sent))
                        bar.update()

    def rows(self) -> list[dict[str, Any]]:
        return rows(self.runs, self.goal)

    def about(self) -> dict[str, Any]:
        """For reports: how everything was measured."""
        return {
            "benchmark": "shapes",
            "pair": self.pair.title,
            "gflop_per_tile": getattr(self.pair.large, "gflop", None),
            "layouts": {name: text for name, text in layouts(True).items() if name != "default"},
            "flags": list(self.pair.flags),
            "settings": {one.name: {"keys": one.keys, "flags": list(one.flags)} for one in self.settings},
            "start_seconds": {server.log: round(server.seconds, 1) for server in self._servers.values()},
            "rounds": self.amount.rounds,
            "capacity": self.amount.capacity,
            "goal": self.goal,
        }

    def _send(self, case: Case, setting: Setting) -> Sent:
        server = self._servers[None if setting is PLAIN else setting.flags]
        try:
            return asyncio.run(send(server.address, case, setting.keys, self._marks))
        except BenchmarkError as error:
            raise BenchmarkError(f"{setting.name}, {case.group}: {error}; see {server.log}") from None

    def _warm_up(self, setting: Setting) -> Case:
        """One, then many at once: vLLM compiles some code when it first sees a batch."""
        rng = random.Random(setting.name)
        first = fresh((0, 0))
        batch = [fresh((0, 1, number)) for number in range(self.amount.of(8))]
        return Case("warm-up", side_by_side([*batch, text_only(rng, 4)], _CLIENTS), before=(first,))

    def _calibrate(self) -> None:
        """Plain vLLM's capacity, the goal, and that it reads."""
        alone = Case("alone", side_by_side([fresh((0, 2, n)) for n in range(self.amount.of(6))], 1))
        found = self._send(alone, PLAIN)
        if not self.goal:
            self.goal = _GOAL * median(answer.seconds for answer in found.answers)
        busy = [fresh((0, 3, n)) for n in range(self.amount.of(32))]
        loaded = self._send(Case("busy", side_by_side(busy, _CLIENTS)), PLAIN)
        if not self.amount.capacity:
            self.amount = replace(self.amount, capacity=len(busy) / loaded.seconds)
        answers = found.answers + loaded.answers
        right = sum(answer.right or 0 for answer in answers)
        if right < _READS * len(answers):
            raise BenchmarkError(
                f"wrong answers, so no figures: plain vLLM has {right:g} of {len(answers)} questions right, "
                f"expected {_READS:.0%}; is this the trained model?"
            )
        report.progress(
            f"plain vLLM answers {self.amount.capacity:.3g} requests/s under load; "
            f"the goal is {self.goal:.3g} s"
        )
