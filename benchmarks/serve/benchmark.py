"""One run of a preset, from the first server's start to the tables."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import report
from benchmarks.support.load import Reply, ask, body
from benchmarks.support.pair import Side, layouts, sides
from benchmarks.support.server import VLLM, Server, running
from benchmarks.support.workspace import Workspace

from . import answers, figures, results
from .bench import Bench, Run
from .components import Samples, part_times
from .cost import PartTimes
from .presets import Preset
from .settings import DEFAULT, Setting, Step

_CACHES = (
    "prefix and encoder caches as by vLLM's defaults (on CPUs a small processor cache), SGL's feature cache "
    "on; no request has a picture that its server has seen"
)
#: A worker of vLLM's default layout polls on for a while: what followed it at once was up to 18 % slower.
_POLLS_SECONDS = 5
#: Each needs what those before it give: component times, and answers to compare with.
_TURNS: tuple[Side, ...] = ("small", "plain", "default", "guided")


class Benchmark:
    """One run of everything; what it finds is written as it comes."""

    def __init__(self, workspace: Workspace, name: str, preset: Preset, out: Path | None) -> None:
        self._workspace, self._name, self._preset, self._out = workspace, name, preset, out
        self._began = time.monotonic()
        self._environment = workspace.describe() | {"layouts": layouts(preset.cpu)}
        self._fixed = preset.asked.aside(2 * preset.answers)
        self._threshold = 0.0
        self._runs: list[Run] = []
        self._small, self._large = Samples(), Samples()

    def run(self) -> None:
        """
        Raises:
            BenchmarkError: where a server does not start, or answers are wrong.
        """
        report.print_environment(self._environment)
        for side, layout in self._environment["layouts"].items():
            print(f"layout    {side}: {layout}")
        print(f"caches    {_CACHES}", flush=True)
        pair, workspace = self._preset.pair, self._workspace
        pair.write(workspace.work)
        guided = "benchmarks.serve.random_guide" if self._preset.random else VLLM
        servers = {
            side: pair.server(workspace, side, guided if side == "guided" else VLLM)
            for side in sides(self._preset.cpu)
        }
        with Bench(workspace, self._preset) as bench:
            if self._preset.together:
                self._side_by_side(bench, servers)
            else:
                self._in_turns(bench, servers)
        self._show()

    def _side_by_side(self, bench: Bench, servers: Mapping[Side, Server]) -> None:
        report.progress(f"starting {', '.join(servers)}")
        with running(*servers.values()):
            bench.ready()
            self._measure(servers)
            self._check(servers, answers.answer(servers["plain"], self._preset, self._fixed))
            for server in servers.values():
                self._warm_up(server)
            for round in range(self._preset.rounds):
                if round and self._late:
                    break
                self._load(bench, servers, list(self._preset.steps(round)))
                self._measure(servers)

    def _in_turns(self, bench: Bench, servers: Mapping[Side, Server]) -> None:
        steps = [step for round in range(self._preset.rounds) for step in self._preset.steps(round)]
        replies: list[Reply] = []
        bench.ready()
        for side in [side for side in _TURNS if side in servers]:
            server = servers[side]
            report.progress(f"starting {side}")
            with running(server):
                here = {side: server}
                self._measure(here)
                if side == "plain":
                    replies = answers.answer(server, self._preset, self._fixed)
                self._check(here, replies)
                self._warm_up(server)
                self._load(bench, here, [step for step in steps if step.setting.side == side])

    @property
    def _late(self) -> bool:
        return time.monotonic() - self._began > 60 * self._preset.minutes

    def _times(self, clients: int) -> PartTimes:
        alone = partial(part_times, self._small, self._large)
        return figures.under_load(lambda count: alone(self._preset.batched(count)), self._runs)(clients)

    def _measure(self, servers: Mapping[Side, Server]) -> None:
        """Component times of those servers that have them."""
        for side, into in (("small", self._small), ("plain", self._large)):
            if side in servers:
                into.measure(servers[side], self._preset, small=side == "small")

    def _check(self, servers: Mapping[Side, Server], plain: Sequence[Reply]) -> None:
        """plain: replies of plain vLLM to the fixed set."""
        if "plain" in servers and self._preset.asked.known:
            answers.right(self._fixed, plain)
        if "default" in servers:
            answers.same(answers.answer(servers["default"], self._preset, self._fixed), plain)
        if (guided := servers.get("guided")) is not None:
            answers.check(guided, self._preset, self._fixed, plain)
            report.progress("answers are right")
            if None in self._preset.thresholds:
                asked = self._preset.asked.aside(self._preset.answers)
                self._threshold = answers.threshold(guided, self._preset, asked)
                report.progress(f"exits from a score of {self._threshold:.4g}")

    def _warm_up(self, server: Server) -> None:
        """Many at once: vLLM compiles some code when it first sees a batch."""
        setting = Setting(retention=min(self._preset.retentions), exits=True)
        asked, source = self._preset.asked.aside(max(self._preset.loads) // 2 or 1), self._preset.asked
        xargs = setting.xargs(self._threshold)  # plain vLLM passes over them
        made = [body(one.content, source.max_tokens, xargs, source.fixed_length) for one in asked]
        ask(server, made, len(made))

    def _load(self, bench: Bench, servers: Mapping[Side, Server], steps: Sequence[Step]) -> None:
        with tqdm(total=sum(self._preset.loads[step.clients] for step in steps), unit="request") as bar:
            for step in steps:
                if step.round and self._late and self._preset.together:
                    break
                bar.set_description(str(step))
                requests = self._preset.asked.make(self._preset.numbers(step), step.setting.sent)
                self._runs.append(bench.load(servers[step.setting.side], step, requests, self._threshold))
                if step.setting == DEFAULT:
                    time.sleep(_POLLS_SECONDS)
                bar.update(len(requests))
                self._write()

    @property
    def _minutes(self) -> float:
        return round((time.monotonic() - self._began) / 60, 1)

    @property
    def _about(self) -> dict[str, Any]:
        return {
            **self._environment,
            "benchmark": "serve",
            "preset": self._name,
            "pair": self._preset.pair.title,
            "minutes": self._minutes,
            "caches": _CACHES,
            "exit_threshold": self._threshold,
        }

    def _show(self) -> None:
        results.show(self._out, self._about | {"finished": True}, self._runs, self._times)

    def _write(self) -> None:
        """What there is so far."""
        # Where servers take turns there may be nothing yet to set a load against.
        if self._out is not None and self._small.vision and self._large.vision:
            results.write(self._out, self._about | {"finished": False}, self._runs, self._times)
