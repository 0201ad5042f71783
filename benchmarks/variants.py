"""What a flag of an SGL server changes under load: servers that differ in it, and plain vLLM, in turns.

    python -m benchmarks.variants [--variants NAME...] [--clients N...] [--requests N] [--out FILE]

All servers are up at once and are asked the same questions in the same minutes, one after the other; which
variant comes first changes from round to round. Every run stands between two of plain vLLM and is divided by
their mean (`benchmarks/serve/figures.py`); a variant is then set against "shipped" round by round.

* **charged-by-kept**: vLLM's own scheduler in the large engine, which charges an image, in a step's budget
  for the vision encoder, by the tokens that are left of it instead of by what is encoded
  (`vllm_sgl/host/worker/encoder_budget.py`).
* **small-step**: the guide's steps take one large image, so that requests reach the large model one by one.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from tqdm import tqdm

from benchmarks import report
from benchmarks.serve import answers, figures
from benchmarks.serve.bench import Bench, Run
from benchmarks.serve.figures import Point
from benchmarks.serve.presets import PRESETS, Preset
from benchmarks.serve.settings import PLAIN, Setting, Step
from benchmarks.serving.load import ask, body
from benchmarks.serving.pair import Variant, layouts
from benchmarks.serving.server import Server, running
from benchmarks.serving.workspace import ROOT, BenchmarkError, Workspace, stoppable
from vllm_sgl.commands.arguments import count

SHIPPED = "shipped"
#: A large image of the sign readers is 208 visual tokens, with its question less than 256.
VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(SHIPPED),
        Variant("charged-by-kept", flags=("--scheduler-cls=vllm.v1.core.sched.scheduler.Scheduler",)),
        Variant("small-step", small_args={"max_num_batched_tokens": 256}),
    )
}
SETTINGS = (
    Setting(retention=0.35, policy="tiles"),
    Setting(retention=0.35, policy="top"),
    Setting(retention=0.18, policy="tiles"),
)
_PRESET = "signs-26b"
_LONGEST = 3600
_FIGURES = ("throughput", "median ttft")


def turns(variants: Sequence[str], clients: int, round: int) -> Iterator[tuple[str | None, Step]]:
    """A round at one load: a variant's name, None for plain vLLM, and what it is asked."""
    first = round % len(variants)
    for group, name in enumerate([*variants[first:], *variants[:first]]):
        yield None, Step(round, clients, group, PLAIN)
        yield from ((name, Step(round, clients, group, setting)) for setting in SETTINGS)
    yield None, Step(round, clients, len(variants), PLAIN)


def rows(runs: Mapping[str | None, Sequence[Run]]) -> list[dict[str, Any]]:
    """One per variant, setting and load: ratios to plain vLLM, and to what is shipped; above 1 is better.

    Args:
        runs: by variant; plain vLLM's under None.
    """
    plain = runs[None]
    points = {
        name: {(one.setting, one.clients): one for one in figures.points([*plain, *made])}
        for name, made in runs.items()
        if name is not None
    }
    return [
        {
            "variant": name,
            "setting": str(setting),
            "clients": clients,
            **{metric: median(point.ratios[metric]) for metric in _FIGURES},
            **{
                f"{metric}, to shipped": _to_shipped(point, points[SHIPPED][setting, clients], metric)
                for metric in _FIGURES
            },
            "guide s": point.mean("guide_seconds"),
            "right %": _right(point),
            "rounds": len(point.runs),
        }
        for name, found in points.items()
        for (setting, clients), point in found.items()
    ]


def _to_shipped(point: Point, shipped: Point, metric: str) -> float:
    """Geometric mean over rounds: of few rounds a median is one of them."""
    pairs = zip(point.ratios[metric], shipped.ratios[metric], strict=True)
    return geometric_mean(one / other for one, other in pairs)


def _right(point: Point) -> float | None:
    worth = [value for run in point.runs for value in run.right or ()]
    return 100 * sum(worth) / len(worth) if worth else None


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    stoppable()
    preset = PRESETS[options.preset]
    loads = {
        clients: options.requests or preset.loads[clients] for clients in options.clients or preset.loads
    }
    preset = replace(preset, loads=loads, retentions=tuple({one.retention for one in SETTINGS}))
    with tempfile.TemporaryDirectory(prefix="variants-benchmark-") as temporary:
        workspace = Workspace(preset.cpu, options.work or Path(temporary), time.monotonic() + _LONGEST)
        try:
            workspace.work.mkdir(parents=True, exist_ok=True)
            workspace.prepare()
            about = workspace.describe() | {"layouts": layouts(preset.cpu)}
            report.print_environment(about)
            runs = _measure(workspace, preset, options.variants, options.rounds)
        except BenchmarkError as error:
            report.progress(str(error))
            return 1
    found = rows(runs)
    print("\nRelative to plain vLLM, laid out like SGL; above 1 is better")
    report.print_table(found)
    noise = {metric: figures.noise(runs[None], metric) for metric in _FIGURES}
    print("One ratio's noise, by plain vLLM's own runs:", {name: f"{one:.1%}" for name, one in noise.items()})
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        values = {**about, "benchmark": "variants", "preset": options.preset, "noise": noise}
        values["runs"] = {name or "plain": [asdict(run) for run in made] for name, made in runs.items()}
        report.write_json(options.out, values, found)
        report.progress(f"written: {options.out}")
    return 0


def _measure(
    workspace: Workspace, preset: Preset, variants: Sequence[str], rounds: int
) -> dict[str | None, list[Run]]:
    """
    Raises:
        BenchmarkError: where a server does not start, or answers are wrong.
    """
    preset.pair.write(workspace.work)
    servers: dict[str | None, Server] = {None: preset.pair.server(workspace, "plain")}
    servers |= {name: preset.pair.server(workspace, "guided", variant=VARIANTS[name]) for name in variants}
    steps = [
        turn
        for round in range(rounds)
        for clients in preset.loads
        for turn in turns(variants, clients, round)
    ]
    runs: dict[str | None, list[Run]] = {name: [] for name in servers}
    with ExitStack() as stack:
        bench = stack.enter_context(Bench(workspace, preset))
        report.progress(f"starting plain, {', '.join(variants)}")
        stack.enter_context(running(*servers.values()))
        bench.ready()
        _check(servers, preset)
        for name, step in tqdm(steps, unit="run"):
            requests = preset.asked.make(preset.numbers(step))
            runs[name].append(bench.load(servers[name], step, requests, threshold=0.0))
    return runs


def _check(servers: Mapping[str | None, Server], preset: Preset) -> None:
    """Every server answers as it should, and has seen a batch."""
    fixed = preset.asked.aside(2 * preset.answers)
    plain = answers.answer(servers[None], preset, fixed)
    answers.right(fixed, plain)
    for name, server in servers.items():
        if name is not None:
            answers.check(server, preset, fixed, plain)
        asked, longest = preset.asked.aside(max(preset.loads)), preset.asked.max_tokens
        xargs = SETTINGS[0].xargs(0.0) if name is not None else {}
        ask(
            server,
            [body(one.content, longest, xargs, preset.asked.fixed_length) for one in asked],
            len(asked),
        )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.variants",
        description="SGL servers that are started otherwise, and plain vLLM, under the same load in turns.",
    )
    signs = [name for name in PRESETS if name.startswith("signs-")]
    add = parser.add_argument
    add("--preset", choices=signs, default=_PRESET, help=f"pair and loads (default: {_PRESET})")
    add("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="beside plain (default: all)")
    add("--clients", nargs="+", type=count, metavar="N", help="some of the preset's loads (default: all)")
    add("--requests", type=count, metavar="N", help="of one run (default: the preset's, by clients)")
    add("--rounds", type=count, default=3, metavar="N", help="how often (default: 3)")
    add("--work", type=Path, metavar="DIR", help="keep checkpoints and logs here")
    add("--out", type=Path, metavar="FILE", default=ROOT / "benchmarks/results/variants.json",
        help="where the JSON goes (default: benchmarks/results/variants.json)")  # fmt: skip
    options = parser.parse_args(arguments)
    if SHIPPED not in options.variants:
        options.variants.insert(0, SHIPPED)  # what the others are set against
    loads = PRESETS[options.preset].loads
    if unknown := sorted(set(options.clients or ()) - loads.keys()):
        parser.error(f"--clients: expected some of {list(loads)}, received {unknown}")
    return options


if __name__ == "__main__":
    sys.exit(main())
