"""What n losses in [0, 1] say about their mean, where they are independent or come in independent groups.
Pure: numbers only.

The p-values are those of "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk Control"
(arXiv 2110.01052): valid at every n, for the hypothesis that the mean is above a level.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

#: Losses are sums of floats; a sum that is a whole number up to this is one.
_ROUNDING = 1e-9


def binomial_tail(most: int, n: int, p: float) -> float:
    """Probability of at most ``most`` successes in ``n`` tries that succeed with probability ``p`` each."""
    if most < 0:
        return 0.0
    if most >= n or p <= 0:
        return 1.0
    if p >= 1:
        return 0.0
    yes, no = math.log(p), math.log1p(-p)
    logs = [_log_choose(n, k) + k * yes + (n - k) * no for k in range(most + 1)]
    largest = max(logs)
    return min(1.0, math.exp(largest) * math.fsum(math.exp(one - largest) for one in logs))


@dataclass(frozen=True)
class Groups:
    """Losses that depend on each other, such as those of questions about one image. count: of the groups,
    which are independent. largest: losses in one, at most.

    A group of m losses with sum s stands for the one loss (s + level x (largest - m)) / largest, in [0, 1]:
    its mean over groups is above the level exactly where the mean over losses is.
    """

    count: int
    largest: int


def p_value(total: float, n: int, level: float, whole: bool, groups: Groups | None = None) -> float:
    """How likely losses as small as these are, at most, if their mean is above ``level``.

    Args:
        total: sum of the losses, in [0, n].
        level: in (0, 1).
        whole: whether a loss is 0 or 1. Then it is the exact binomial tail; else Hoeffding's and Bentkus'
            bounds, the smaller one (arXiv 2110.01052, proposition 2).
        groups: in which they come; None where all are independent.
    """
    if groups is not None and groups.largest > 1:
        total = (total + level * (groups.largest * groups.count - n)) / groups.largest
        n, whole = groups.count, False
    if n == 0:
        return 1.0
    if whole:
        return binomial_tail(round(total), n, level)
    mean = total / n
    hoeffding = math.exp(-n * _divergence(min(mean, level), level))
    bentkus = math.e * binomial_tail(math.ceil(total - _ROUNDING), n, level)
    return min(1.0, hoeffding, bentkus)


def fewest(level: float, error: float) -> int:
    """The fewest losses, all of them 0, whose p-value is at most ``error``."""
    return math.ceil(math.log(error) / math.log1p(-level) - _ROUNDING)


def bound(total: float, n: int, error: float, whole: bool, groups: Groups | None = None) -> float:
    """The mean is at most this, with confidence 1 - ``error``: the smallest level whose p-value is at most
    ``error`` (for whole losses: Clopper's and Pearson's)."""
    if n == 0 or total >= n:
        return 1.0
    return _bisected(lambda level: p_value(total, n, level, whole, groups) <= error, total / n, 1.0)


def enough(mean: float, level: float, error: float, whole: bool, most: int = 1_000_000) -> int | None:
    """How many losses with this mean it takes for a p-value of at most ``error``; None where no number up to
    ``most`` does, as when the mean is not below the level."""
    low = fewest(level, error)
    if mean >= level or p_value(mean * most, most, level, whole) > error:
        return None
    high = most
    while low < high:  # the p-value falls with n, but for steps of one loss
        middle = (low + high) // 2
        if p_value(math.ceil(mean * middle), middle, level, whole) <= error:
            high = middle
        else:
            low = middle + 1
    return low


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _divergence(a: float, b: float) -> float:
    """Kullback-Leibler divergence of a Bernoulli distribution with mean a from one with mean b."""
    first = a * math.log(a / b) if a > 0 else 0.0
    return first + (1 - a) * math.log((1 - a) / (1 - b)) if a < 1 else first


def _bisected(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The smallest number from which on it holds, up to 1e-7; it holds at ``high``."""
    while high - low > 1e-7:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
