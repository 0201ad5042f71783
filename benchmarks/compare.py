"""Is a result worse than an earlier one?

    python -m benchmarks.compare A.json B.json

Reads what `benchmarks.serve` and `benchmarks.memory` wrote. Exits with 0 where B is not worse than A, with 1
where it is, and with 2 where the files cannot be compared.

Every figure carries the standard error e of its logarithm, which its own benchmark estimated from repeated
runs (`benchmarks/serve/figures.py` says how). B is worse at a point when its logarithm has lost more than

    max(log(1 + FLOOR), z * sqrt(e_A**2 + e_B**2))

The floor stands for what one run cannot see of itself: another start of the servers, another hour of the
machine. z is such that of all comparisons together one in a hundred goes red by chance. The row "all" is the
mean over the points of a figure, whose noise is smaller: it sees a loss that is small but everywhere.

Where more requests end early, all is faster. A point where another share of the requests exited is named and
left out: its requests were others, or something is wrong with the exits.
"""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, fmean
from typing import Any

from benchmarks import report
from benchmarks.arguments import make_parser

FLOOR = 0.03
FALSE_ALARMS = 0.01
#: Shares of requests that exit, further apart than this, are not the same.
SAME_EXITS = 0.02
_ALL = "all"


@dataclass(frozen=True)
class Change:
    """gain: log of B relative to A, above 0 is better. error: its standard error."""

    point: str
    figure: str
    a: float | None
    b: float | None
    gain: float
    error: float


def changes(a: dict[str, Any], b: dict[str, Any]) -> list[Change]:
    """Of every figure that both results have, and of each kind of figure over all points.

    Raises:
        ValueError: where the results are of different benchmarks, presets or layouts of processes, or have no
            figure in common.
    """
    for name in ("benchmark", "preset"):
        if a.get(name) is None or a.get(name) != b.get(name):
            raise ValueError(f"cannot compare: {name} is {a.get(name)} in A and {b.get(name)} in B")
    if a.get("layouts") != b.get("layouts"):
        raise ValueError(
            "cannot compare: servers were laid out in another way, so A's figures are relative to another "
            f"plain vLLM; layouts are {a.get('layouts')} in A and {b.get('layouts')} in B"
        )
    apart = other_exits(a, b)
    found = [change for change in _changes(_figures(a), _figures(b)) if change.point not in apart]
    if not found:
        raise ValueError("cannot compare: no figure is in both results")
    return [*found, *_means(found)]


def other_exits(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Points that are not compared -> share of requests that exited in A and in B."""
    before, after = ({row["point"]: row.get("exit_share", 0.0) for row in one["rows"]} for one in (a, b))
    shares = {point: (share, after[point]) for point, share in before.items() if point in after}
    return {point: both for point, both in shares.items() if abs(both[0] - both[1]) > SAME_EXITS}


def allowed(change: Change, comparisons: int) -> float:
    """How much of the logarithm may be lost."""
    z = NormalDist().inv_cdf(1 - FALSE_ALARMS / comparisons)
    return max(math.log(1 + FLOOR), z * change.error)


def verdict(change: Change, comparisons: int) -> str:
    limit = allowed(change, comparisons)
    return "worse" if change.gain < -limit else "better" if change.gain > limit else "same"


def _figures(result: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["point"], name): one for row in result["rows"] for name, one in row["figures"].items()}


def _changes(a: dict[tuple[str, str], dict], b: dict[tuple[str, str], dict]) -> Iterator[Change]:
    for (point, name), before in a.items():
        if (after := b.get((point, name))) is not None:
            gain = math.log(after["value"] / before["value"]) * (1 if before["better"] == "higher" else -1)
            error = math.hypot(before["error"] or 0.0, after["error"] or 0.0)
            yield Change(point, name, before["value"], after["value"], gain, error)


def _means(found: Sequence[Change]) -> Iterator[Change]:
    for name in dict.fromkeys(change.figure for change in found):
        own = [change for change in found if change.figure == name]
        if len(own) > 1:
            error = math.hypot(*(change.error for change in own)) / len(own)
            yield Change(_ALL, name, None, None, fmean(change.gain for change in own), error)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = make_parser("compare", "Is B worse than A by more than the noise?")
    for name in "AB":
        parser.add_argument(name, type=Path, metavar=f"{name}.json")
    options = parser.parse_args(arguments)
    try:
        a, b = (json.loads(path.read_text()) for path in (options.A, options.B))
        found = changes(a, b)
    except (OSError, ValueError) as error:
        report.progress(str(error))
        return 2
    if a["machine"] != b["machine"] or a["gpu"] != b["gpu"]:
        report.progress("note: A and B are from different machines")
    for point, (in_a, in_b) in other_exits(a, b).items():
        report.progress(f"note: {point}: not compared, {in_a:.0%} of requests exited in A, {in_b:.0%} in B")
    verdicts = [verdict(change, len(found)) for change in found]
    report.print_table(_row(*both, len(found)) for both in zip(found, verdicts, strict=True))
    print(", ".join(f"{word}: {verdicts.count(word)}" for word in ("worse", "same", "better")))
    return 1 if "worse" in verdicts else 0


def _row(change: Change, word: str, comparisons: int) -> dict[str, Any]:
    return {
        "point": change.point,
        "figure": change.figure,
        "A": change.a,
        "B": change.b,
        "gain %": round(100 * math.expm1(change.gain), 1),
        "noise %": round(-100 * math.expm1(-allowed(change, comparisons)), 1),
        "verdict": word,
    }


if __name__ == "__main__":
    sys.exit(main())
