"""What a run prints."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import report

from . import figures
from .bench import Run
from .figures import Times
from .settings import PLAIN


def show(runs: Sequence[Run], times: Times) -> None:
    """Component times, plain vLLM, SGL relative to it, and the time to the first token on its own."""
    rows = figures.rows(runs, times)
    clients = list(dict.fromkeys(run.step.clients for run in runs))
    print("\nSeconds of a request's parts, measured one model at a time")
    report.print_table(_parts(times, clients))
    print("\nPlain vLLM")
    report.print_table(figures.plain_rows(runs, times))
    print("\nRelative to plain vLLM, laid out like SGL; above 1 is better; ± two standard errors")
    report.print_table(_speeds(rows))
    print("\nMedian time to the first token, seconds of plain vLLM and ratios to it; above 1 is sooner")
    report.print_table(_first_tokens(runs, rows, clients))


def _parts(times: Times, clients: Iterable[int]) -> Iterator[dict[str, Any]]:
    for count in clients:
        seconds = asdict(times(count))
        by_share = seconds.pop("large_language")
        names = {f"large_language, R={share:g}": value for share, value in by_share.items()}
        yield {"clients": count, **seconds, **names}


def _speeds(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        by_name = row["figures"]
        beside = row["beside_default_layout"]["throughput"]
        yield {
            "R": row["retention"],
            "exits %": round(100 * row["exit_share"]) if row["exits"] else "off",
            "clients": row["clients"],
            "kept": row["kept_tokens"],
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
    names = {count: f"{count} client{'s' if count > 1 else ''}" for count in clients}
    seconds = {n: figures.median_of("ttft_median", runs, PLAIN, n) for n in clients}
    yield {"setting": "plain, s", **{names[n]: seconds[n] for n in clients}}
    cells = {(row["setting"], row["clients"]): _spread(row["figures"]["median ttft"]) for row in rows}
    for setting in dict.fromkeys(row["setting"] for row in rows):
        yield {"setting": setting, **{names[n]: cells.get((setting, n)) for n in clients}}


def _spread(figure: dict[str, Any]) -> str:
    error = figure["error"]
    return _short(figure["value"]) + (f" (±{2 * error:.0%})" if error is not None else "")


def _short(value: float) -> str:
    return f"{value:.2f}"
