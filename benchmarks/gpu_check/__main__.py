"""`python -m benchmarks.gpu_check [--only SECTIONS] [--smoke]`; see the package."""

import argparse
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import report as reporting
from benchmarks.arguments import RESULTS, add_work, make_parser
from benchmarks.support.workspace import BenchmarkError

from . import default_settings, importance, native_kernels, peaks, speed
from .section import Check, Section

Run = Callable[[Check], Section]
#: One stage after the other; the parts of a stage side by side, because none of them takes times.
#: (name for --only, name in the report, what to run)
STAGES: list[list[tuple[str, str, Run]]] = [
    [("kernels", "kernel tests", native_kernels.test), ("importance", "importance", importance.run)],
    [("kernels", "kernel benchmark", native_kernels.measure)],
    [("serve", "serve", speed.run)],
    [("memory", "memory", peaks.run)],
    [("defaults", "default settings", default_settings.run)],
]
_PRINTING = threading.Lock()
NAMES = list(dict.fromkeys(only for stage in STAGES for only, _, _ in stage))


def main() -> int:
    arguments = _parse()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        check = Check(arguments.smoke, work, began + arguments.seconds)
        try:
            check.prepare()
        except BenchmarkError as error:
            print(error)
            return 1
        report = {**check.describe(), "smoke": arguments.smoke, "sections": {}}
        reporting.print_environment(report)
        for stage in STAGES:
            wanted = [(name, run) for only, name, run in stage if only in arguments.only]
            # A smoke run has no cores to spare for two at once.
            with ThreadPoolExecutor(1 if arguments.smoke else len(stage)) as pool:
                for name, found in pool.map(lambda part: (part[0], _run(check, *part)), wanted):
                    report["sections"][name] = found
                    _write(report, arguments)
    report["seconds"] = time.monotonic() - began
    path = _write(report, arguments)
    states = {name: section["state"] for name, section in report["sections"].items()}
    print(f"\n{states}\n{report['seconds']:.0f} s, written to {path or 'nowhere (a smoke run)'}")
    return 0 if set(states.values()) == {"ok"} else 1


def _run(check: Check, name: str, run: Callable[[Check], Section]) -> dict:
    """One section to its end, whatever happens in it."""
    began = time.monotonic()
    print(f"... {name}", flush=True)
    try:
        section = run(check)
    except BenchmarkError as error:
        section = Section(failures=[str(error)])
    except Exception:
        section = Section(failures=[traceback.format_exc()])
    check.found[name] = section
    state = "failed" if section.failures else "ok"
    seconds = time.monotonic() - began
    failures = (f"FAILED {failure}" for failure in section.failures)
    with _PRINTING:
        print(f"\n== {name}: {state}, {seconds:.0f} s")
        columns = dict.fromkeys(column for row in section.rows for column in row)
        reporting.print_table({**columns, **row} for row in section.rows)
        print("\n".join((*section.notes, *failures)), flush=True)
    found = {"rows": section.rows, "notes": section.notes, "failures": section.failures}
    return {"state": state, "seconds": seconds, **found}


def _write(report: dict, arguments: argparse.Namespace) -> Path | None:
    """Written after every section: a run that is cut off leaves what it had. A smoke run's figures mean
    nothing, and are written only where ``--out`` says so."""
    if arguments.out is None:
        return None
    arguments.out.mkdir(parents=True, exist_ok=True)
    kind = "smoke" if arguments.smoke else "gpu"
    stamp = report["utc"].replace(" ", "-").replace(":", "")
    path = arguments.out / f"{kind}-check-{stamp}.json"
    reporting.write_json(path, report)
    return path


def _parse() -> argparse.Namespace:
    parser = make_parser("gpu_check", "Kernels, importance, speed and memory on one large GPU.")
    parser.add_argument("--only", default=",".join(NAMES), help="sections, separated by commas")
    parser.add_argument("--smoke", action="store_true", help="tiny models on a CPU: does the code run?")
    parser.add_argument("--seconds", type=float, default=720, help="what all of it may take")
    parser.add_argument("--out", type=Path, metavar="DIR",
        help="where the JSON goes (default: benchmarks/results; smoke: nowhere)")  # fmt: skip
    add_work(parser)
    arguments = parser.parse_args()
    arguments.only = arguments.only.split(",")
    if arguments.out is None and not arguments.smoke:
        arguments.out = RESULTS
    if unknown := set(arguments.only) - set(NAMES):
        parser.error(f"--only: unknown {', '.join(sorted(unknown))}; sections: {', '.join(NAMES)}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
