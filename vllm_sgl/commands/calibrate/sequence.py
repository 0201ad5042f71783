"""In which order settings are tested: fixed sequence testing of "Learn then Test" (arXiv 2110.01052).

The first test that fails ends the sequence, so the order decides how far it goes, and nothing else: a setting
that breaks the promise passes only if the first such one of the sequence does, which happens in at most a
share ``error`` of the cases, whatever the order is, as long as it does not depend on the requests that test.
Here it is made of the other requests alone. Only settings that no other one beats in both loss and cost are
in it ("Efficiently Controlling Multiple Risks with Pareto Testing", arXiv 2210.07913).

Few requests cannot tell the losses of mild settings apart: there are often ten thresholds under which none of
them lost anything, and the lowest of these owes that to luck. Tested one after the other, each spares a
little more of the large model, until the one with too much luck ends the sequence before anything was pruned.
So among settings that lost as much

1. one foothold comes first, the mildest of all: the fewest exits, nothing pruned, so that something is
   promised where pruning turns out to lose too much;
2. then what prunes and does not exit, milder ones first: few steps, each of them a large one;
3. then what exits, milder ones first.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from vllm_sgl.commands.calibrate.cost import Cost
from vllm_sgl.commands.calibrate.losses import Array, Requests, Setting

#: Thresholds that are tried, at most, where none are given.
_THRESHOLDS = 60


def grid(requests: Requests, thresholds: Sequence[float] | None, lowest: float = 0.0) -> list[Setting]:
    """Every setting there is to test; what the large model alone does is none."""
    settings = [Setting(policy, retention, None) for policy, retention in requests.pruned if retention < 1]
    for name, score in requests.scores.items():
        tried = [one for one in scores(score) if one >= lowest] if thresholds is None else thresholds
        settings += [Setting(*key, threshold, name) for key in requests.pruned for threshold in tried]
    return settings


def scores(score: Array) -> list[float]:
    """Thresholds at evenly spaced ranks of the scores, highest first, in four digits."""
    found = np.unique(score[~np.isnan(score)])
    if len(found) > _THRESHOLDS:
        found = found[np.linspace(0, len(found) - 1, _THRESHOLDS).round().astype(int)]
    return sorted({math.floor(one * 10_000) / 10_000 for one in found}, reverse=True)


def order(
    requests: Requests, cost: Cost, thresholds: Sequence[float] | None, lowest: float = 0.0
) -> list[Setting]:
    """The sequence, each setting cheaper than all before it.

    Args:
        requests: none of those that test.
        thresholds: those to try; None for the scores at hand.
        lowest: no score below it is a threshold.
    """
    settings = grid(requests, thresholds, lowest)
    if not len(requests):
        return sorted(settings, key=lambda setting: -setting.retention)[:1]
    spent = {setting: cost.of(requests, setting) for setting in settings}
    ranked = sorted(settings, key=lambda setting: (_rank(requests, setting), spent[setting]))
    sequence: list[Setting] = []
    if ranked and ranked[0].retention < 1:
        sequence += _foothold(requests, settings)
    cheapest = min((spent[setting] for setting in sequence), default=math.inf)
    for setting in ranked:
        if spent[setting] < cheapest:
            sequence.append(setting)
            cheapest = spent[setting]
    return sequence


def _rank(requests: Requests, setting: Setting) -> float:
    """What is lost; below one loss, whether anything exits, and how much is not as the large model alone has
    it."""
    exits = _share(requests, setting)
    changed = exits + (1 - exits) * (1 - setting.retention)
    return float(requests.losses(setting).sum()) + (changed + (setting.threshold is not None)) / 2


def _foothold(requests: Requests, settings: Iterable[Setting]) -> list[Setting]:
    """One setting, or none where no request exits without a loss."""
    shares = {
        setting: share
        for setting in settings
        if setting.retention == 1
        and (share := _share(requests, setting)) > 0
        and not requests.losses(setting).any()
    }
    return sorted(shares, key=shares.__getitem__)[:1]


def _share(requests: Requests, setting: Setting) -> float:
    """The share of requests that exit."""
    return float(requests.exits(setting).mean())
