"""What a run prints."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import report

from . import curve, figures
from .bench import Run
from .curve import CurvePoint
from .figures import Times
from .settings import PLAIN


def show(runs: Sequence[Run], times: Times) -> None:
    """Component times, plain vLLM, SGL relative to it, and the time to the first token on its own."""
    rows = figures.rows(runs, times)
    clients = list(dict.fromkeys(run.step.clients for run in runs))
    print("\nSeconds of a request's parts, measured one model at a time")
    report.print_table(_parts(times, clients))
    print("\nPlain vLLM in both layouts, and controls")
    report.print_table(figures.rows_beside(runs))
    print("\nRelative to plain vLLM, laid out like SGL; above 1 is better; ± two standard errors")
    report.print_table(_speeds(rows, curve.points(runs)))
    print("\nMedian time to the first token, seconds of plain vLLM and ratios to it; above 1 is sooner")
    report.print_table(_first_tokens(runs, rows, clients))
    if found := curve.points(runs):
        print("\nAccuracy (exact match, % with 95 % intervals) and measured seconds per question")
        report.print_table(_accuracies(found, clients))


def _parts(times: Times, clients: Iterable[int]) -> Iterator[dict[str, Any]]:
    for count in clients:
        seconds = asdict(times(count))
        by_share = seconds.pop("large_language")
        names = {f"large_language, R={share:g}": value for share, value in by_share.items()}
        yield {"clients": count, **seconds, **names}


def _speeds(rows: Iterable[dict[str, Any]], found: Sequence[CurvePoint]) -> Iterator[dict[str, Any]]:
    accuracy = {str(point.setting): f"{100 * point.accuracy.value:.1f}" for point in found}
    for row in rows:
        by_name = row["figures"]
        beside = row["beside_default_layout"]["throughput"]
        yield {
            "setting": row["setting"],
            "exits %": round(100 * row["exit_share"]) if row["exits"] else "off",
            "left alone %": round(100 * row["busy_share"]),
            "clients": row["clients"],
            "kept": row["kept_tokens"],
            "encoded %": None if row["encoded_share"] is None else round(100 * row["encoded_share"]),
            **({"accuracy %": accuracy[row["setting"]]} if accuracy else {}),
            "requests/s": _short(row["requests_per_s"]),
            "throughput": _spread(by_name["throughput"]),
            "ideal": _short(row["ideal"]),
            "share of it": f"{row['efficiency']:.0%}",
            "beside vLLM's default layout": beside and _short(beside),
            **{name: _short(one["value"]) for name, one in by_name.items() if name != "throughput"},
            "overhead ms": round(1000 * row["overhead_seconds"]),
            "guide s": row["guide_seconds"] and _short(row["guide_seconds"]),
            "rounds": row["rounds"],
        }


def _first_tokens(
    runs: Sequence[Run], rows: Sequence[dict[str, Any]], clients: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """A row per setting, a column per number of clients."""
    names = {count: _clients(count) for count in clients}
    seconds = {n: figures.median_of("ttft_median", runs, PLAIN, n) for n in clients}
    yield {"setting": "plain, s", **{names[n]: seconds[n] for n in clients}}
    cells = {(row["setting"], row["clients"]): _spread(row["figures"]["median ttft"]) for row in rows}
    for setting in dict.fromkeys(row["setting"] for row in rows):
        yield {"setting": setting, **{names[n]: cells.get((setting, n)) for n in clients}}


def _accuracies(found: Sequence[CurvePoint], clients: Sequence[int]) -> Iterator[dict[str, Any]]:
    """A row per setting."""
    seconds = {(point.setting, point.clients): point.seconds for point in found}
    for setting, accuracy in {point.setting: point.accuracy for point in found}.items():
        value, low, high = (f"{100 * share:.1f}" for share in (accuracy.value, accuracy.low, accuracy.high))
        yield {
            "setting": str(setting),
            "questions": accuracy.n,
            "accuracy": f"{value} [{low}, {high}]",
            **{f"s, {_clients(count)}": seconds.get((setting, count)) for count in clients},
        }


def _clients(count: int) -> str:
    return f"{count} client{'s' if count > 1 else ''}"


def _spread(figure: dict[str, Any]) -> str:
    error = figure["error"]
    return _short(figure["value"]) + (f" (±{2 * error:.0%})" if error is not None else "")


def _short(value: float) -> str:
    return f"{value:.2f}"
