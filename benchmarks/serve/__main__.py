"""`python -m benchmarks.serve [--preset NAME] [--out DIR]`; see the package."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import report
from benchmarks.arguments import RESULTS, add_rounds, add_work, make_parser
from benchmarks.support.workspace import BenchmarkError, Workspace, stoppable
from vllm_sgl.commands.arguments import count, share, threshold

from .benchmark import Benchmark
from .presets import PRESETS
from .results import again

#: What the command line may change of a preset.
_CHANGES = ("rounds", "minutes", "loads", "retentions", "thresholds", "policies")
_LONGEST = 4 * 3600  # seconds until everything is given up


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    if options.again is not None:
        again(options.again)
        return 0
    stoppable()
    preset = PRESETS[options.preset]
    changes = {name: getattr(options, name) for name in _CHANGES}
    preset = replace(preset, **{name: value for name, value in changes.items() if value is not None})
    with tempfile.TemporaryDirectory(prefix="serve-benchmark-") as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        workspace = Workspace(preset.cpu, work, time.monotonic() + _LONGEST)
        try:
            workspace.prepare()
            Benchmark(workspace, options.preset, preset, options.out).run()
        except BenchmarkError as error:
            report.progress(str(error))
            return 1
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("serve", "SGL against plain vLLM under load.")
    add = parser.add_argument
    add("--preset", choices=PRESETS, default="cpu", help="what is served and how it is loaded (default: cpu)")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="for result.json and pictures (default: benchmarks/results/serve-PRESET; quick ones: nowhere)",
    )
    add_work(parser)
    add_rounds(parser, None, "at most")
    add(
        "--minutes",
        type=float,
        metavar="M",
        help="begin nothing after this, but finish round 1 (default: the preset's)",
    )
    add("--clients", nargs="+", type=count, metavar="N", help="some of the preset's loads (default: all)")
    add("--retentions", nargs="+", type=share, metavar="R", help="shares of visual tokens that SGL keeps")
    add("--thresholds", nargs="+", type=threshold, metavar="T", help="exits from these scores on")
    add("--policies", nargs="+", metavar="NAME", help="values of sgl_policy (default: the server's)")
    add("--again", type=Path, metavar="DIR", help="measure nothing: figure a written run anew, in its place")
    options = parser.parse_args(arguments)
    options.loads = None
    if options.clients is not None:
        loads = PRESETS[options.preset].loads
        if unknown := sorted(set(options.clients) - loads.keys()):
            parser.error(f"--clients: expected some of {list(loads)}, received {unknown}")
        options.loads = {clients: loads[clients] for clients in sorted(options.clients)}
    for name in ("retentions", "thresholds", "policies"):
        if getattr(options, name) is not None:
            setattr(options, name, tuple(getattr(options, name)))
    if options.out is None and "quick" not in options.preset:
        options.out = RESULTS / f"serve-{options.preset}"
    return options


if __name__ == "__main__":
    sys.exit(main())
