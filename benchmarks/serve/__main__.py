"""`python -m benchmarks.serve [--preset cpu|quick|gpu] [--out DIR]`; see the package."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import report
from benchmarks.serving.load import Reply, ask, bodies
from benchmarks.serving.server import Server, running
from benchmarks.serving.session import ROOT, BenchmarkError, Session, stoppable

from . import answers, components, figures
from .bench import Bench, Run
from .components import Samples
from .cost import Costs
from .presets import PRESETS, Preset, Setting, Step

_LONGEST = 4 * 3600  # seconds until everything is given up
_CACHES = (
    "prefix and encoder caches as by vLLM's defaults (on CPUs a small processor cache), SGL's feature cache "
    "on; every request has a picture and a question of its own"
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    stoppable()
    preset = PRESETS[options.preset]
    changes = {"rounds": options.rounds, "minutes": options.minutes}
    preset = replace(preset, **{name: value for name, value in changes.items() if value is not None})
    with tempfile.TemporaryDirectory(prefix="serve-benchmark-") as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        session = Session(preset.cpu, work, time.monotonic() + _LONGEST)
        try:
            session.prepare()
            Benchmark(session, options.preset, preset, options.out).run()
        except BenchmarkError as error:
            report.progress(str(error))
            return 1
    return 0


class Benchmark:
    """One run of everything; what it finds is written as it comes."""

    def __init__(self, session: Session, name: str, preset: Preset, out: Path | None) -> None:
        self._session, self._name, self._preset, self._out = session, name, preset, out
        self._began = time.monotonic()
        self._environment = session.describe()
        self._seeds = count(1)
        self._fixed = self._take(2 * preset.answers)
        self._threshold = 0.0
        self._runs: list[Run] = []
        self._small, self._large = Samples(), Samples()

    def run(self) -> None:
        """
        Raises:
            BenchmarkError: where a server does not start, or answers are wrong.
        """
        report.print_environment(self._environment)
        print(f"caches    {_CACHES}", flush=True)
        pair, session = self._preset.pair, self._session
        pair.write(session.work)
        small, plain, guided = (pair.server(session, side) for side in ("small", "plain", "guided"))
        with Bench(session, self._preset) as bench:
            if self._preset.together:
                self._side_by_side(bench, small, plain, guided)
            else:
                self._in_turns(bench, small, plain, guided)
        self._show()

    def _side_by_side(self, bench: Bench, small: Server, plain: Server, guided: Server) -> None:
        report.progress("starting plain vLLM, SGL, and the small model alone")
        with running(small, plain, guided):
            bench.ready()
            self._measure(small, self._small)
            self._measure(plain, self._large)
            self._check(guided, answers.answer(plain, self._preset, self._fixed))
            self._warm_up(plain)
            self._warm_up(guided)
            for round in range(self._preset.rounds):
                if round and self._late:
                    break
                self._load(bench, plain, guided, list(self._preset.steps(round)))
                self._measure(small, self._small)
                self._measure(plain, self._large)

    def _in_turns(self, bench: Bench, small: Server, plain: Server, guided: Server) -> None:
        steps = [step for round in range(self._preset.rounds) for step in self._preset.steps(round)]
        report.progress("starting the small model alone")
        with running(small):
            bench.ready()
            self._measure(small, self._small)
        report.progress("starting plain vLLM")
        with running(plain):
            self._measure(plain, self._large)
            replies = answers.answer(plain, self._preset, self._fixed)
            self._warm_up(plain)
            self._load(bench, plain, guided, [step for step in steps if step.setting is None])
        report.progress("starting SGL")
        with running(guided):
            self._check(guided, replies)
            self._warm_up(guided)
            self._load(bench, plain, guided, [step for step in steps if step.setting is not None])

    @property
    def _late(self) -> bool:
        return time.monotonic() - self._began > 60 * self._preset.minutes

    @property
    def _costs(self) -> Costs:
        return components.costs(self._small, self._large)

    def _measure(self, server: Server, into: Samples) -> None:
        into.measure(server, self._preset, self._take(self._preset.repeats + 1)[0])

    def _check(self, guided: Server, plain: Sequence[Reply]) -> None:
        answers.check(guided, self._preset, self._fixed, plain)
        self._threshold = answers.threshold(guided, self._preset, self._take(self._preset.answers))
        report.progress(f"answers are right; exits from a score of {self._threshold:.4g}")

    def _warm_up(self, server: Server) -> None:
        """Many at once: vLLM compiles some code when it first sees a batch."""
        setting = Setting(min(self._preset.retentions), exits=True)
        seeds = self._take(max(self._preset.loads) // 2 or 1)
        xargs = setting.xargs(self._threshold)  # plain vLLM passes over them
        ask(server, bodies(seeds, self._preset.pair.image, self._preset.max_tokens, xargs), len(seeds))

    def _load(self, bench: Bench, plain: Server, guided: Server, steps: Sequence[Step]) -> None:
        with tqdm(total=sum(self._preset.loads[step.clients] for step in steps), unit="request") as bar:
            for step in steps:
                if step.round and self._late and self._preset.together:
                    break
                bar.set_description(str(step))
                requests = self._preset.loads[step.clients]
                server = guided if step.setting else plain
                seed = self._take(requests)[0]
                self._runs.append(bench.load(server, step, seed, self._threshold))
                bar.update(requests)
                self._write(finished=False)

    def _take(self, how_many: int) -> list[int]:
        """Seeds of pictures that nobody else uses."""
        return [next(self._seeds) for _ in range(how_many)]

    @property
    def _minutes(self) -> float:
        return round((time.monotonic() - self._began) / 60, 1)

    def _show(self) -> None:
        rows = figures.rows(self._runs, self._costs)
        print(f"\nSeconds of the parts: {json.dumps(asdict(self._costs), indent=2)}\n")
        report.print_table(figures.plain_rows(self._runs, self._costs))
        print("\nRelative to plain vLLM, above 1 is better; ± two standard errors")
        report.print_table(_table(rows))
        known = max(run.cached_share for run in self._runs)
        print(f"The prefix cache knew {known:.1%} of prompt tokens at most. {self._minutes} minutes")
        self._write(finished=True)
        if self._out is not None:
            from .pictures import draw

            pair = self._preset.pair
            title = f"{pair.large.name} guided by {pair.small.name}, {self._environment['machine']}"
            for path in draw(self._runs, self._costs, self._out, title):
                report.progress(f"written: {path}")

    def _write(self, finished: bool) -> None:
        if self._out is None:
            return
        self._out.mkdir(parents=True, exist_ok=True)
        values = {
            **self._environment,
            "benchmark": "serve",
            "preset": self._name,
            "finished": finished,
            "minutes": self._minutes,
            "caches": _CACHES,
            "exit_threshold": self._threshold,
            "costs": asdict(self._costs),
            "noise": {metric: figures.noise(self._runs, metric) for metric in figures.METRICS},
            "plain": figures.plain_rows(self._runs, self._costs),
            "runs": [asdict(run) for run in self._runs],
        }
        report.write_json(self._out / "result.json", values, figures.rows(self._runs, self._costs))


def _table(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        by_name = row["figures"]
        yield {
            "R": row["retention"],
            "exits %": round(100 * row["exit_share"]) if row["exits"] else "off",
            "clients": row["clients"],
            "kept": row["kept_tokens"],
            "requests/s": _short(row["requests_per_s"]),
            **{name: _short(figure["value"]) for name, figure in by_name.items()},
            "throughput": _spread(by_name["throughput"]),
            "ideal": _short(row["ideal"]),
            "efficiency": _short(row["efficiency"]),
            "overhead ms": round(1000 * row["overhead_seconds"]),
            "guide s": row["guide_seconds"] and _short(row["guide_seconds"]),
            "rounds": row["rounds"],
        }


def _spread(figure: dict[str, Any]) -> str:
    error = figure["error"]
    return _short(figure["value"]) + (f" (±{2 * error:.0%})" if error is not None else "")


def _short(value: float) -> str:
    return f"{value:.2f}"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serve", description="SGL against plain vLLM under load."
    )
    add = parser.add_argument
    add("--preset", choices=PRESETS, default="cpu", help="what is served and how it is loaded (default: cpu)")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="for result.json and pictures (default: benchmarks/results/serve-PRESET; quick: nowhere)",
    )
    add(
        "--work",
        type=Path,
        metavar="DIR",
        help="keep checkpoints and logs here (default: a temporary folder)",
    )
    add("--rounds", type=int, metavar="N", help="at most (default: the preset's)")
    add(
        "--minutes",
        type=float,
        metavar="M",
        help="begin nothing after this, but finish round 1 (default: the preset's)",
    )
    options = parser.parse_args(arguments)
    if options.out is None and options.preset != "quick":
        options.out = ROOT / f"benchmarks/results/serve-{options.preset}"
    return options


if __name__ == "__main__":
    sys.exit(main())
