"""The figures as tables and JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import report

from .exits import ExitPoint
from .metrics import Estimate
from .summary import Summary

#: Exit shares that the table shows; the JSON has the whole curve.
_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def show(summary: Summary) -> None:
    """Print every table that there is data for."""
    print(f"\nAccuracy ({summary.metric}), % with 95 % intervals; cost in FLOPs of the large model alone")
    report.print_table(_rows(summary))
    if summary.exit_score is not None:
        auc = _interval(summary.exit_score, 1) or "unknown: all answers are right, or all wrong"
        print(f"\nExit score: AUC {auc}. By share of questions that exit:")
        report.print_table(_exit_rows(summary))
    if summary.checks:
        print("\nExit thresholds asked of the real path, and what the answers above foretell:")
        report.print_table(asdict(check) for check in summary.checks)


def write(path: Path, values: Mapping[str, Any], summary: Summary) -> None:
    """values: environment and run; goes first."""
    rows = [asdict(row) for row in summary.rows]
    others = {
        "metric": summary.metric,
        "exit_score_auc": summary.exit_score and asdict(summary.exit_score),
        "exits": [
            {"retention": retention, "points": [asdict(point) for point in curve]}
            for retention, curve in summary.curves.items()
        ],
        "exit_checks": [asdict(check) for check in summary.checks],
    }
    report.write_json(path, {**values, **others}, rows)


def _rows(summary: Summary) -> Iterator[dict[str, Any]]:
    for row in summary.rows:
        accuracy, wrong = row.accuracy[summary.metric], row.small_wrong[summary.metric]
        yield {
            "setting": row.setting.label,
            "n": row.n,
            "visual tokens": round(row.visual_tokens, 1),
            "share %": round(100 * row.share, 1),
            "tiles encoded %": _percent(row.encoded),
            "cost": row.cost and round(row.cost, 3),
            "accuracy": _interval(accuracy),
            "small wrong: n": wrong.n,
            "accuracy there": _interval(wrong),
        }


def _exit_rows(summary: Summary) -> Iterator[dict[str, Any]]:
    for retention, curve in summary.curves.items():
        for point in _at_shares(curve):
            yield {
                "retention": retention,
                "threshold": "off" if point.threshold is None else round(point.threshold, 4),
                "exits %": round(100 * point.share, 1),
                "accuracy": round(100 * point.accuracy, 1),
                "cost": point.cost and round(point.cost, 3),
                "of exits right": _percent(point.exited_accuracy),
                "small wrong: exits %": _percent(point.share_small_wrong),
                "accuracy there": _percent(point.accuracy_small_wrong),
            }


def _at_shares(curve: Sequence[ExitPoint]) -> list[ExitPoint]:
    """The points nearest to the shares of the table, each once."""
    nearest = (min(curve, key=lambda point: abs(point.share - share)) for share in _SHARES)
    return list(dict.fromkeys(nearest))


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 1)


def _interval(estimate: Estimate, scale: int = 100) -> str | None:
    if estimate.value is None:
        return None
    digits = 1 if scale == 100 else 3
    value, low, high = (f"{scale * x:.{digits}f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"
