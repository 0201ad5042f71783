"""Which settings may be promised, and the cheapest of them: Learn then Test (arXiv 2110.01052).

Every setting is a hypothesis, "its mean loss is above the level". Some of the requests only put settings in
an order; the others test them in that order, each at the full error rate, until the first one that cannot be
rejected: fixed sequence testing, with the order (:mod:`vllm_sgl.commands.calibrate.sequence`) learnt from a
split of the data. Requests about one image or of one conversation depend on each other: they stay together in
the split, and count together in the tests. The order does not depend on the requests that test. So with
probability 1 - error every setting that passes has a mean loss of at most the level, whichever is taken
afterwards.
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

#: With fewer groups of requests none is left to order settings.
FEWEST_GROUPS = math.ceil(1 / ORDERING)


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
    below, with the promise's confidence, if only this setting is looked at. groups: images or conversations
    that those n are of."""

    setting: Setting
    n: int
    lost: float
    p_value: float
    passed: bool
    bound: float
    groups: int


@dataclass(frozen=True)
class Choice:
    """tests: in their order, up to the first that did not pass. chosen: None where none did."""

    tests: tuple[Tested, ...]
    chosen: Setting | None
    ordering: int
    testing: int


def choose(
    requests: Requests,
    promise: Promise,
    cost: Cost,
    thresholds: Sequence[float] | None = None,
    seed: int = 0,
    lowest: float = 0.0,
) -> Choice:
    """Order, test, and take the cheapest that passes.

    Args:
        thresholds: those to try; None for the scores of the requests that order.
        seed: of the split.
        lowest: no threshold is below it.
    """
    first, testing = split(len(requests), seed, requests.group_numbers())
    settings = sequence.order(requests.some(first), cost, thresholds, lowest)
    tests = tuple(tried(requests.some(testing), settings, promise))
    passed = [one.setting for one in tests if one.passed]
    chosen = min(passed, key=lambda setting: cost.of(requests, setting), default=None)
    return Choice(tests, chosen, len(first), len(testing))


def total_of(testing: int) -> int:
    """The number of all requests, given the number that test."""
    return next(n for n in range(testing, 3 * testing + 3) if n - ordering(n) >= testing)


def split(
    n: int, seed: int, group: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of the requests that order, and of those that test: a share of the groups, drawn at random.

    Args:
        group: of each of the n, from 0 on; None where each is one of its own.
    """
    numbers = np.arange(n) if group is None else group
    groups = int(numbers.max(initial=-1)) + 1
    order = np.random.default_rng(seed).permutation(groups)[: ordering(groups)]
    orders = np.isin(numbers, order)
    return np.flatnonzero(orders), np.flatnonzero(~orders)


def ordering(n: int) -> int:
    """How many of n put the settings in an order."""
    return math.floor(n * ORDERING)


def tried(requests: Requests, settings: Iterable[Setting], promise: Promise) -> Iterator[Tested]:
    """One after the other, up to the first that does not pass."""
    n, sizes = len(requests), requests.group_sizes()
    groups = risk.Groups(len(sizes), int(sizes.max(initial=0)))
    for setting in settings:
        lost = float(requests.losses(setting).sum())
        value = risk.p_value(lost, n, promise.max_loss, requests.whole, groups)
        passed = value <= promise.error
        limit = risk.bound(lost, n, promise.error, requests.whole, groups)
        yield Tested(setting, n, lost, value, passed, limit, groups.count)
        if not passed:
            return
