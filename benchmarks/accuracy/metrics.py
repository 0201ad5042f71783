"""How sure a mean over questions is. What one answer is worth is in
:mod:`vllm_sgl.evaluate.metrics`. Pure: numbers only."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: An answer worth less is wrong: only VQA accuracy and ANLS have values in between.
RIGHT = 0.5
#: Two-sided 95 % quantile of the normal distribution.
_Z = 1.959964
_RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A figure over n questions and its 95 % interval; all None but n where there is nothing to measure."""

    value: float | None
    low: float | None
    high: float | None
    n: int


def mean(values: Sequence[float]) -> Estimate:
    """Mean of values in [0, 1]: Wilson's interval where all are 0 or 1, else a percentile bootstrap."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    if n == 0:
        return Estimate(None, None, None, 0)
    p = float(values.mean())
    if np.isin(values, (0, 1)).all():
        centre = p + _Z**2 / (2 * n)
        spread = _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
        low, high = ((centre + sign * spread) / (1 + _Z**2 / n) for sign in (-1, 1))
        return Estimate(p, min(p, max(0.0, low)), max(p, min(1.0, high)), n)  # exactly 0 and 1 at the ends
    means = values[_resampled(n)].mean(axis=1)
    return Estimate(p, *_percentiles(means), n)


def auc(scores: Sequence[float], right: Sequence[bool]) -> Estimate:
    """Probability that a right answer has a higher score than a wrong one, ties counting half (area under
    the ROC curve, Mann-Whitney); a percentile bootstrap over questions. None with only one kind."""
    scores, right = np.asarray(scores, dtype=float), np.asarray(right, dtype=bool)
    n = len(scores)
    value = _auc(scores, right)
    if value is None:
        return Estimate(None, None, None, n)
    drawn = (_auc(scores[rows], right[rows]) for rows in _resampled(n))
    return Estimate(value, *_percentiles([one for one in drawn if one is not None]), n)


def _auc(scores: np.ndarray, right: np.ndarray) -> float | None:
    positives = int(right.sum())
    negatives = len(right) - positives
    if not positives or not negatives:
        return None
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (count.cumsum() - (count - 1) / 2)[place]  # from 1; equal scores share their mean rank
    return float((ranks[right].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _resampled(n: int) -> np.ndarray:
    """Row numbers [resamples, n], drawn with replacement; the same for the same n."""
    return np.random.default_rng(0).integers(0, n, (_RESAMPLES, n))


def _percentiles(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
