"""`python -m benchmarks.shapes`; see the package."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.arguments import RESULTS, add_out, add_rounds, add_work, make_parser
from benchmarks.support.workspace import BenchmarkError, Workspace, stoppable

from . import tables
from .benchmark import Benchmark
from .pair import pair
from .settings import DEFAULT, KNOWN, setting
from .traffic import SHAPES, Amount

_LONGEST = 4 * 3600  # seconds until everything is given up
_OUT = "shapes-signs-26b"
#: GFLOP of the large model per tile: for figures, and the least that the readers cost.
_GFLOP, _QUICK_GFLOP = 14.0, 2.5


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    stoppable()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shapes-benchmark-") as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        workspace = Workspace(True, work, began + _LONGEST)
        made = pair(options.gflop, "off" if options.quick else "auto")
        benchmark = Benchmark(workspace, made, options.shapes, options.settings, options.amount, options.goal)
        try:
            workspace.prepare()
            about = workspace.describe()
            report.print_environment(about)
            with benchmark.servers():
                benchmark.measure()
        except BenchmarkError as error:
            report.progress(str(error))
            return 1
    about |= benchmark.about() | {"minutes": round((time.monotonic() - began) / 60, 1)}
    rows = benchmark.rows()
    sections = {
        "At a glance: plain vLLM's seconds over SGL's, above 1 is faster": tables.glance(rows),
        "Every shape, and right answers": tables.short(rows),
        "How they were answered": list(tables.long(rows)),
    }
    report.print_sections(sections)
    out = options.out and options.out / "shapes.json"
    report.write(out, "shapes", about, rows, sections)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    shapes = "\n".join(f"  {shape.name}: {shape.about}" for shape in SHAPES.values())
    more = (
        f"shapes:\n{shapes}\nsettings:\n  {'; '.join(KNOWN)};\n  or NAME:PART[,PART...] with parts "
        "sgl_KEY=VALUE, --FLAG=VALUE or a known setting\n"
        f"  (default: {'; '.join(DEFAULT)})"
    )
    parser = make_parser("shapes", "Plain vLLM against SGL by the shape of traffic.", more)
    add = parser.add_argument
    add("--shapes", type=_shapes, metavar="NAME,...", help="some of those below (default: all)")
    add("--settings", nargs="+", type=setting, metavar="SETTING",
        help="of SGL, see below")  # fmt: skip
    add_rounds(parser, 3, "cases of each kind")
    add("--seconds", type=float, default=25.0, metavar="S", help="of arrivals in an open loop (default: 25)")
    add("--capacity", type=float, default=0.0, metavar="R",
        help="requests/s of plain vLLM, for open loops (default: measured)")  # fmt: skip
    add("--goal", type=float, default=0.0, metavar="S",
        help="seconds of an answer, for shares within (default: twice plain's at one client)")  # fmt: skip
    add("--gflop", type=float, metavar="G", help=f"of the large model per tile (default: {_GFLOP:g})")
    add("--quick", action="store_true", help="a smoke test: few small requests; its figures mean nothing")
    add_work(parser)
    add_out(parser, what="shapes.json (shapes.md beside it)", folder=True, default=_OUT)
    parser.set_defaults(out=None)
    options = parser.parse_args(arguments)
    options.shapes = options.shapes or list(SHAPES)
    options.settings = options.settings or [KNOWN[name] for name in DEFAULT]
    options.gflop = options.gflop or (_QUICK_GFLOP if options.quick else _GFLOP)
    amount = {"rounds": options.rounds, "seconds": options.seconds, "capacity": options.capacity}
    options.amount = Amount(**amount)
    if options.quick:
        options.amount = Amount(rounds=1, seconds=2.0, capacity=options.capacity, scale=4)
    elif options.out is None:
        options.out = RESULTS / _OUT
    return options


def _shapes(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SHAPES]:
        raise argparse.ArgumentTypeError(
            f"expected some of {', '.join(SHAPES)}, received {', '.join(unknown)}"
        )
    return names


if __name__ == "__main__":
    sys.exit(main())
