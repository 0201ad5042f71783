"""From runs to figures: ratios to plain vLLM, their noise, ideal and efficiency. Pure arithmetic.

**The vision encoder under load** is what a load of a model alone takes beyond its language part: a batch of
images costs less per image than one does, and an ideal that charged one image's time would be no bound.

**A ratio** divides a run by the mean of the two plain runs around it; above 1 is better than plain. A point's
figure is the median over rounds. Plain vLLM is laid out like SGL; **beside vLLM's default layout** is a
point's ratio over that of the run in the default layout of the same round and number of clients.

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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from .bench import Run
from .cost import PartTimes
from .settings import DEFAULT, PLAIN, SMALL, Setting

#: By number of clients.
Times = Callable[[int], PartTimes]

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

    def by_round(self, name: str) -> list[tuple[Run, float]]:
        """Each run and its ratio."""
        return list(zip(self.runs, self.ratios[name], strict=True))

    def mean(self, name: str) -> float | None:
        """Mean of a run's value over rounds; None where no run has it."""
        values = [value for run in self.runs if (value := getattr(run, name)) is not None]
        return fmean(values) if values else None

    def ideal(self, times: Times) -> float:
        """By the cost model, with the exits and the encoded tiles that were counted."""
        return times(self.clients).ideal(self.setting, *self._shares)

    def parts(self, times: Times) -> dict[str, float]:
        """Seconds per request by the cost model, with the exits and the encoded tiles that were counted."""
        return times(self.clients).parts(self.setting, *self._shares)

    @property
    def _shares(self) -> tuple[float, float, float | None]:
        exits, scored = self.mean("exit_share"), self.mean("scored_share")
        return exits or 0.0, scored or 0.0, self.mean("encoded_share")


def under_load(times: Times, runs: Sequence[Run]) -> Times:
    """Component times whose vision encoders are those of the loads themselves, where these were measured."""

    def vision(setting: Setting, clients: int, alone: float, language: float) -> float:
        seconds = seconds_per_request(runs, setting, clients)
        return alone if seconds is None else max(0.0, seconds - language)

    def at(clients: int) -> PartTimes:
        parts = times(clients)
        large, small = parts.large_language[1.0], parts.small_language
        return replace(
            parts,
            large_vision=vision(PLAIN, clients, parts.large_vision, large),
            small_vision=vision(SMALL, clients, parts.small_vision, small),
        )

    return at


def points(runs: Sequence[Run]) -> list[Point]:
    """In the order of measurement; runs that have no plain run beside them yet are left out."""
    plain = {(run.step.round, run.step.clients, run.step.group): run for run in _plain(runs)}
    found: dict[tuple[Setting, int], Point] = {}
    for run in runs:
        step = run.step
        around = [plain.get((step.round, step.clients, step.group + after)) for after in (0, 1)]
        if step.setting == PLAIN or None in around:
            continue
        empty = Point(step.setting, step.clients, [], {name: [] for name in METRICS})
        point = found.setdefault((step.setting, step.clients), empty)
        point.runs.append(run)
        for name, (field, more) in METRICS.items():
            ratio = getattr(run, field) / fmean(getattr(one, field) for one in around)
            point.ratios[name].append(ratio if more else 1 / ratio)
    return list(found.values())


def beside_default(found: Sequence[Point], point: Point, name: str) -> float | None:
    """A figure relative to vLLM's default layout: median over the rounds that have both; None without any."""
    others = (one for one in found if (one.setting, one.clients) == (DEFAULT, point.clients))
    default = {run.step.round: ratio for one in others for run, ratio in one.by_round(name)}
    both = [
        ratio / default[run.step.round] for run, ratio in point.by_round(name) if run.step.round in default
    ]
    return median(both) if both else None


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


def rows(runs: Sequence[Run], times: Times) -> list[dict[str, Any]]:
    """One per point of SGL, for JSON; ``figures`` is what ``benchmarks.compare`` reads."""
    found = points(runs)
    by_metric = {name: noise(runs, name) for name in METRICS}
    return [_row(point, times, by_metric, found) for point in found if point.setting.method == "sgl"]


def rows_beside(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Plain vLLM in both layouts and the controls, by number of clients, for JSON."""
    ratios = {(one.setting, one.clients): one.speed_up for one in points(runs)}
    asked = dict.fromkeys((run.step.setting, run.step.clients) for run in runs)
    return [
        {
            "setting": str(setting),
            "clients": clients,
            **{name: median_of(field, runs, setting, clients) for name, (field, _) in METRICS.items()},
            "relative throughput": ratios.get((setting, clients)),
        }
        for setting, clients in asked
        if setting.method != "sgl"
    ]


def seconds_per_request(runs: Sequence[Run], setting: Setting, clients: int) -> float | None:
    """1 / throughput, median over runs; None where there is no run."""
    throughput = median_of("throughput", runs, setting, clients)
    return 1 / throughput if throughput else None


def median_of(field: str, runs: Iterable[Run], setting: Setting, clients: int) -> float | None:
    """A field of a setting's runs at one number of clients; None where there is no run."""
    found = [getattr(r, field) for r in runs if (r.step.setting, r.step.clients) == (setting, clients)]
    return median(found) if found else None


def _row(
    point: Point, times: Times, by_metric: dict[str, float | None], found: Sequence[Point]
) -> dict[str, Any]:
    rounds = len(point.runs)
    parts, ideal = point.parts(times), point.ideal(times)
    guide_ideal = sum(seconds for part, seconds in parts.items() if not part.startswith("large"))
    throughput = median(run.throughput for run in point.runs)
    return {
        "point": f"{point.setting}, clients={point.clients}",
        "setting": str(point.setting),
        "retention": point.setting.retention,
        "exits": point.setting.exits,
        "threshold": point.setting.threshold,
        "policy": point.setting.policy,
        "clients": point.clients,
        "rounds": rounds,
        "requests": point.runs[0].requests,
        "requests_per_s": throughput,
        "kept_tokens": point.mean("kept_tokens"),
        "exit_share": point.mean("exit_share"),
        "encoded_share": point.mean("encoded_share"),
        "busy_share": point.mean("busy_share"),
        "cached_share": point.mean("cached_share"),
        "guide_seconds": point.mean("guide_seconds"),
        "guide_seconds_ideal": guide_ideal or None,
        "ideal": ideal,
        "efficiency": point.speed_up / ideal,
        "overhead_seconds": 1 / throughput - sum(parts.values()),
        "beside_default_layout": {name: beside_default(found, point, name) for name in METRICS},
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
    return [run for run in runs if run.step.setting == PLAIN]


def _neighbours(runs: Iterable[Run]) -> list[tuple[Run, Run]]:
    """Plain runs that follow each other in a round at the same load."""
    together = defaultdict(list)
    for run in _plain(runs):
        together[run.step.round, run.step.clients].append(run)
    return [pair for group in together.values() for pair in itertools.pairwise(group)]
