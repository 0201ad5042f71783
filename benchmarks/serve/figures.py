"""From runs to figures: ratios to plain vLLM, their noise, ideal and efficiency. Pure arithmetic.

**A ratio** divides an SGL run by the mean of the two plain runs around it; above 1 is better than plain. A
point's figure is the median over rounds.

**Noise** is the standard deviation of the logarithm of one such ratio. It is pooled over all points, because
one point has few rounds: (1) deviations of a point's log ratios from their mean, over all points with two
rounds or more; (2) log ratios of neighbouring plain runs of the same round and number of clients, which
should be 0. If one run has variance v, a ratio has v + v/2 and two neighbours differ by 2 v, so their squares
count 3/4. A figure's **error** is noise / sqrt(rounds), times sqrt(pi/2) from three rounds on, where the
median is no longer the mean.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from .bench import Run
from .cost import Costs
from .presets import Setting

#: Name of a figure -> the run's value, and whether more of it is better.
METRICS = {
    "throughput": ("throughput", True),
    "median ttft": ("ttft_median", False),
    "p99 ttft": ("ttft_p99", False),
    "median e2e": ("e2e_median", False),
    "p99 e2e": ("e2e_p99", False),
}


@dataclass(frozen=True)
class Point:
    """One setting at one load. ratios: by METRICS, one per round. runs: as many."""

    setting: Setting
    clients: int
    runs: list[Run]
    ratios: dict[str, list[float]]

    @property
    def speed_up(self) -> float:
        """Requests per second, relative to plain vLLM."""
        return median(self.ratios["throughput"])

    def mean(self, name: str) -> float | None:
        """Mean of a run's value over rounds; None where no run has it."""
        values = [value for run in self.runs if (value := getattr(run, name)) is not None]
        return fmean(values) if values else None

    def ideal(self, costs: Costs) -> float:
        """By the cost model, with the exits that were measured."""
        return costs.ideal(self.setting, self.mean("exit_share"), self.mean("scored_share"))

    def parts(self, costs: Costs) -> dict[str, float]:
        """Seconds per request by the cost model, with the exits that were measured."""
        return costs.parts(self.setting, self.mean("exit_share"), self.mean("scored_share"))


def points(runs: Sequence[Run]) -> list[Point]:
    """In the order of measurement; runs that have no plain run beside them yet are left out."""
    plain = {(run.step.round, run.step.clients, run.step.group): run for run in _plain(runs)}
    found: dict[tuple[Setting, int], Point] = {}
    for run in runs:
        step = run.step
        around = [plain.get((step.round, step.clients, step.group + after)) for after in (0, 1)]
        if step.setting is None or None in around:
            continue
        empty = Point(step.setting, step.clients, [], {name: [] for name in METRICS})
        point = found.setdefault((step.setting, step.clients), empty)
        point.runs.append(run)
        for name, (field, more) in METRICS.items():
            ratio = getattr(run, field) / fmean(getattr(one, field) for one in around)
            point.ratios[name].append(ratio if more else 1 / ratio)
    return list(found.values())


def noise(runs: Sequence[Run], metric: str) -> float | None:
    """Standard deviation of the log of one ratio; None where nothing was measured twice."""
    squares, freedom = 0.0, 0
    for point in points(runs):
        logs = [math.log(ratio) for ratio in point.ratios[metric]]
        squares += sum((log - fmean(logs)) ** 2 for log in logs)
        freedom += len(logs) - 1
    for one, other in _neighbours(runs):
        field = METRICS[metric][0]
        squares += 0.75 * math.log(getattr(one, field) / getattr(other, field)) ** 2
        freedom += 1
    return math.sqrt(squares / freedom) if freedom else None


def error(noise: float | None, rounds: int) -> float | None:
    """Standard error of the log of a median over rounds."""
    if noise is None:
        return None
    return noise / math.sqrt(rounds) * (math.sqrt(math.pi / 2) if rounds > 2 else 1)


def rows(runs: Sequence[Run], costs: Costs) -> list[dict[str, Any]]:
    """One per point, for JSON; ``figures`` is what ``benchmarks.compare`` reads."""
    by_metric = {name: noise(runs, name) for name in METRICS}
    return [_row(point, costs, by_metric) for point in points(runs)]


def plain_rows(runs: Sequence[Run], costs: Costs) -> list[dict[str, Any]]:
    """Plain vLLM by number of clients, for JSON."""
    clients = dict.fromkeys(run.step.clients for run in _plain(runs))
    return [
        {
            "clients": count,
            **{
                name: median(getattr(run, field) for run in _plain(runs) if run.step.clients == count)
                for name, (field, _) in METRICS.items()
            },
            "overhead_seconds": seconds_per_request(runs, None, count) - sum(costs.parts(None).values()),
        }
        for count in clients
    ]


def seconds_per_request(runs: Sequence[Run], setting: Setting | None, clients: int) -> float | None:
    """1 / throughput, median over runs; None where there is no run."""
    found = [run.throughput for run in runs if (run.step.setting, run.step.clients) == (setting, clients)]
    return 1 / median(found) if found else None


def _row(point: Point, costs: Costs, by_metric: dict[str, float | None]) -> dict[str, Any]:
    rounds = len(point.runs)
    parts = point.parts(costs)
    guide_ideal = sum(seconds for part, seconds in parts.items() if not part.startswith("large"))
    ideal = point.ideal(costs)
    throughput = median(run.throughput for run in point.runs)
    return {
        "point": f"{point.setting}, clients={point.clients}",
        "retention": point.setting.retention,
        "exits": point.setting.exits,
        "clients": point.clients,
        "rounds": rounds,
        "requests": point.runs[0].requests,
        "requests_per_s": throughput,
        "kept_tokens": point.mean("kept_tokens"),
        "exit_share": point.mean("exit_share"),
        "cached_share": point.mean("cached_share"),
        "guide_seconds": point.mean("guide_seconds"),
        "guide_seconds_ideal": guide_ideal or None,
        "ideal": ideal,
        "efficiency": point.speed_up / ideal,
        "overhead_seconds": 1 / throughput - sum(parts.values()),
        "figures": {
            name: {
                "value": median(ratios),
                "low": min(ratios),
                "high": max(ratios),
                "error": error(by_metric[name], rounds),
                "better": "higher",
            }
            for name, ratios in point.ratios.items()
        },
    }


def _plain(runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if run.step.setting is None]


def _neighbours(runs: Iterable[Run]) -> list[tuple[Run, Run]]:
    """Plain runs that follow each other in a round at the same load."""
    together = defaultdict(list)
    for run in _plain(runs):
        together[run.step.round, run.step.clients].append(run)
    return [pair for group in together.values() for pair in itertools.pairwise(group)]
