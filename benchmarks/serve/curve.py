"""Accuracy over measured seconds per question: what a setting is worth, and what it costs.

Accuracy is a setting's own, over all of its loads and rounds: answers are greedy, so load changes them by
rounding at most. Every question counts once, however often it was asked. Seconds are 1 / requests per second,
at one number of clients.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from benchmarks.accuracy.metrics import Estimate, mean

from .bench import Run
from .figures import seconds_per_request
from .settings import Setting


@dataclass(frozen=True)
class CurvePoint:
    """One setting at one number of clients. seconds: per question. accuracy: exact match, of the setting."""

    setting: Setting
    clients: int
    seconds: float
    accuracy: Estimate

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "name": str(self.setting)}


def accuracy(runs: Sequence[Run], setting: Setting) -> Estimate | None:
    """Of all questions that the setting was asked; None where nobody knows what is right."""
    worth: defaultdict[int, list[float]] = defaultdict(list)
    for run in runs:
        if run.step.setting == setting and run.right is not None:
            for number, one in enumerate(run.right, run.first):
                worth[number].append(one)
    return mean([fmean(each) for each in worth.values()]) if worth else None


def points(runs: Sequence[Run]) -> list[CurvePoint]:
    """Of all settings and numbers of clients, in the order of measurement; none where nobody knows what is
    right."""
    found = []
    for setting, clients in dict.fromkeys((run.step.setting, run.step.clients) for run in runs):
        if (estimate := accuracy(runs, setting)) is not None:
            seconds = seconds_per_request(runs, setting, clients)
            found.append(CurvePoint(setting, clients, seconds, estimate))
    return found
