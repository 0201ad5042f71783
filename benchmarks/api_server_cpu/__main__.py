"""`python -m benchmarks.api_server_cpu [--requests N] [--rounds N] [--out FILE]`; see the package."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.arguments import add_out, add_rounds, add_work, make_parser
from benchmarks.support.pair import layouts
from benchmarks.support.server import running
from benchmarks.support.workspace import BenchmarkError, Workspace, stoppable
from vllm_sgl.commands.arguments import count

from .asking import SETTINGS, Asking
from .pair import IMAGE, PAIR
from .rows import rows

_LONGEST = 1800


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    stoppable()
    with tempfile.TemporaryDirectory(prefix="api-server-cpu-") as temporary:
        workspace = Workspace(True, options.work or Path(temporary), time.monotonic() + _LONGEST)
        try:
            workspace.work.mkdir(parents=True, exist_ok=True)
            workspace.prepare()
            about = workspace.describe() | {"layouts": layouts(workspace.cpu), "image": IMAGE}
            report.print_environment(about)
            PAIR.write(workspace.work)
            child = "benchmarks.api_server_cpu.child"
            servers = {side: PAIR.server(workspace, side, child) for side in ("plain", "guided")}
            with running(*servers.values()):
                asking = Asking(servers, options.requests)
                asking.warm_up()
                spent = [asking.round(number) for number in range(options.rounds)]
        except BenchmarkError as error:
            report.progress(str(error))
            return 1
    found = rows(SETTINGS, spent)
    print("\nMilliseconds of CPU time in the server's process, per request; medians over rounds")
    report.print_table(found)
    values = {**about, "requests": options.requests, "rounds": spent}
    report.write(options.out, "api_server_cpu", values, found)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    about = "CPU time of the process that serves HTTP, per request, and who spends it."
    parser = make_parser("api_server_cpu", about)
    add = parser.add_argument
    add("--requests", type=count, default=16, metavar="N", help="per setting and round (default: 16)")
    add_rounds(parser, 5)
    add_work(parser)
    add_out(parser, "api-server-cpu.json")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
