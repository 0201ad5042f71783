"""Peak memory of plain vLLM, of the small model alone, and of SGL, one after the other on the same machine.

On a CPU, plain vLLM and the small model are laid out like SGL, without a worker process; "default" is plain
vLLM with one, as vLLM's default is (`benchmarks/support/process_layout.py`).

    python -m benchmarks.memory [--preset cpu|quick|gpu] [--out FILE]

On a GPU it is the device's memory in use, as the driver says, less what was in use before; on a CPU the
resident memory of the server and all its children, pages that they share counted in each. A sampled maximum,
from before the start to the end. vLLM reserves its KV caches ahead, as much as it is told to, so the peak is
also given without them. One run has no spread; `benchmarks.compare` allows for its floor.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import report
from benchmarks.arguments import RESULTS, add_out, make_parser
from benchmarks.support.load import ask, bodies
from benchmarks.support.memory import GIB
from benchmarks.support.pair import CPU, QUICK, TRUE, Measured, Pair, layouts, measured, sides
from benchmarks.support.workspace import BenchmarkError, Workspace, stoppable

#: Peak GiB of InternVL2-26B alone, and with a co-resident 2B at 9 % kept (arXiv 2412.03324).
PUBLISHED = {"plain": 51.60, "guided": 54.24}
PRESETS: dict[str, Pair] = {"cpu": CPU, "quick": QUICK, "gpu": TRUE}
_RETENTION = 0.09
_CLIENTS, _REQUESTS, _MAX_TOKENS = 4, 8, 8
_LONGEST = 3600


def row(one: Measured, *, published: bool) -> dict[str, Any]:
    """One side, in GiB. published: whether the pair is the one of the published figures."""
    used = one.peak - one.baseline
    return {
        "side": one.side,
        "peak_gib": used / GIB,
        "kv_pools_gib": one.kv / GIB,
        "without_kv_gib": (used - one.kv) / GIB,
        "published_gib": PUBLISHED.get(one.side) if published else None,
    }


def compared(plain: dict[str, Any], guided: dict[str, Any]) -> str:
    """What the small engine adds, in words."""
    extra = guided["without_kv_gib"] - plain["without_kv_gib"]
    published = PUBLISHED["guided"] - PUBLISHED["plain"]
    return f"the small engine adds {extra:.2f} GiB without its KV pool (published: {published:.2f})"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    stoppable()
    with tempfile.TemporaryDirectory(prefix="memory-benchmark-") as temporary:
        workspace = Workspace(options.preset != "gpu", Path(temporary), time.monotonic() + _LONGEST)
        try:
            workspace.prepare()
            environment = workspace.describe() | {"layouts": layouts(workspace.cpu)}
            report.print_environment(environment)
            rows = _measure(workspace, PRESETS[options.preset])
        except BenchmarkError as error:
            report.progress(str(error))
            return 1
    report.print_table(rows)
    if options.preset == "gpu":
        print(compared(rows[0], rows[-1]))
    values = {**environment, "preset": options.preset}
    report.write(options.out, "memory", values, [_with_figures(found) for found in rows])
    return 0


def _measure(workspace: Workspace, pair: Pair) -> list[dict[str, Any]]:
    """
    Raises:
        BenchmarkError: where a server does not start, refuses a request, or nobody says what is in use.
    """
    pair.write(workspace.work)
    rows = []
    for side in tqdm(sides(workspace.cpu), unit="server"):
        options = {"sgl_retention": _RETENTION} if side == "guided" else None
        requests = bodies(range(_REQUESTS), pair.image, _MAX_TOKENS, options)
        with measured(workspace, pair, side) as one:
            ask(one.server, requests, _CLIENTS)
        if one.peak <= 0:
            raise BenchmarkError(f"{side}: no figure for memory in use")
        rows.append(row(one, published=pair is TRUE))
    return rows


def _with_figures(found: dict[str, Any]) -> dict[str, Any]:
    """As `benchmarks.compare` reads it."""
    figure = {"value": found["peak_gib"], "error": None, "better": "lower"}
    return {"point": found["side"], **found, "figures": {"peak GiB": figure}}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("memory", "Peak memory of plain vLLM, of the small model alone, and of SGL.")
    parser.add_argument("--preset", choices=PRESETS, default="cpu", help="which pair (default: cpu)")
    add_out(parser, "memory-PRESET.json")
    parser.set_defaults(out=None)
    options = parser.parse_args(arguments)
    if options.out is None and options.preset != "quick":
        options.out = RESULTS / f"memory-{options.preset}.json"
    return options


if __name__ == "__main__":
    sys.exit(main())
