"""Which settings may be promised, and the cheapest of them: Learn then Test (arXiv 2110.01052).

Every setting is a hypothesis, "its mean loss is above the level". Some of the requests only put settings in
an order; the others test them in that order, each at the full error rate, until the first one that cannot be
rejected: fixed sequence testing, with the order (:mod:`vllm_sgl.commands.calibrate.sequence`) learnt from a
split of the data. The order does not depend on the requests that test. So with probability 1 - error every
setting that passes has a mean loss of at most the level, whichever is taken afterwards.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vllm_sgl.commands.calibrate import risk, sequence
from vllm_sgl.commands.calibrate.cost import Cost
from vllm_sgl.commands.calibrate.losses import Requests, Setting

#: Share of the requests that put the settings in an order.
ORDERING = 1 / 3


@dataclass(frozen=True)
class Promise:
    """max_loss: the level. confidence: 1 - error."""

    max_loss: float
    confidence: float

    @property
    def error(self) -> float:
        """How often the promise may be wrong."""
        return 1 - self.confidence

    @property
    def fewest_tests(self) -> int:
        """Requests that have to test a setting, at least."""
        return risk.fewest(self.max_loss, self.error)

    @property
    def fewest(self) -> int:
        """Requests that it takes in all, at least: if not one of those that test loses anything."""
        return total_of(self.fewest_tests)


@dataclass(frozen=True)
class Tested:
    """One hypothesis. lost: sum of the losses of the n requests that test. bound: what its mean loss is
    below, with the promise's confidence, if only this setting is looked at."""

    setting: Setting
    n: int
    lost: float
    p_value: float
    passed: bool
    bound: float


@dataclass(frozen=True)
class Choice:
    """tests: in their order, up to the first that did not pass. chosen: None where none did."""

    tests: tuple[Tested, ...]
    chosen: Setting | None
    ordering: int
    testing: int


def choose(
    requests: Requests, promise: Promise, cost: Cost, thresholds: Sequence[float] | None = None, seed: int = 0
) -> Choice:
    """Order, test, and take the cheapest that passes.

    Args:
        thresholds: those to try; None for the scores at hand.
        seed: of the split.
    """
    ordering, testing = split(len(requests), seed)
    settings = sequence.order(requests.some(ordering), cost, thresholds)
    tests = tuple(tried(requests.some(testing), settings, promise))
    passed = [one.setting for one in tests if one.passed]
    chosen = min(passed, key=lambda setting: cost.of(requests, setting), default=None)
    return Choice(tests, chosen, len(ordering), len(testing))


def total_of(testing: int) -> int:
    """How many requests there are in all where so many test."""
    return next(n for n in range(testing, 3 * testing + 3) if n - _ordering(n) >= testing)


def split(n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of the requests that order, and of those that test."""
    rows = np.random.default_rng(seed).permutation(n)
    first = _ordering(n)
    return np.sort(rows[:first]), np.sort(rows[first:])


def _ordering(n: int) -> int:
    return math.floor(n * ORDERING)


def tried(requests: Requests, settings: Iterable[Setting], promise: Promise) -> Iterator[Tested]:
    """One after the other, up to the first that does not pass."""
    n = len(requests)
    for setting in settings:
        lost = float(requests.losses(setting).sum())
        value = risk.p_value(lost, n, promise.max_loss, requests.whole)
        passed = value <= promise.error
        limit = risk.bound(lost, n, promise.error, requests.whole)
        yield Tested(setting, n, lost, value, passed, limit)
        if not passed:
            return
