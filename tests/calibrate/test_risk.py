"""The bounds: against values worked out by hand, and by simulation."""

import math
from fractions import Fraction

import numpy as np
import pytest

from vllm_sgl.commands.calibrate import risk


def exact(most, n, p):
    return float(sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(most + 1)))


@pytest.mark.parametrize(("most", "n"), [(0, 1), (0, 30), (3, 30), (29, 30), (30, 30), (7, 500), (-1, 4)])
@pytest.mark.parametrize("p", [Fraction(1, 100), Fraction(1, 5), Fraction(9, 10)])
def test_the_binomial_tail_is_the_sum_of_its_terms(most, n, p):
    assert risk.binomial_tail(most, n, float(p)) == pytest.approx(exact(most, n, p), rel=1e-9, abs=1e-300)


def test_ends_of_the_binomial_tail():
    assert risk.binomial_tail(0, 5, 0.0) == 1
    assert risk.binomial_tail(4, 5, 1.0) == 0


@pytest.mark.parametrize(
    ("level", "error", "n"), [(0.01, 0.1, 230), (0.05, 0.05, 59), (0.5, 0.5, 1), (0.1, 0.01, 44)]
)
def test_the_fewest_requests(level, error, n):
    """(1 - level)^n is the chance that nothing is lost: "the rule of three"."""
    for whole in (True, False):
        assert risk.p_value(0, n, level, whole) <= error * (1 + 1e-9)
        assert risk.p_value(0, n - 1, level, whole) > error
    assert risk.fewest(level, error) == n


@pytest.mark.parametrize("whole", [True, False])
def test_p_values_are_valid(whole):
    """Where the mean is the level itself, a p-value is at most e in a share e of the cases."""
    rng = np.random.default_rng(0)
    for level, n in ((0.02, 100), (0.1, 40), (0.3, 25)):
        if whole:
            totals = rng.binomial(n, level, 20_000).astype(float)
        else:
            a = 0.7
            totals = rng.beta(a, a * (1 - level) / level, (20_000, n)).sum(axis=1)
        values = np.array([risk.p_value(total, n, level, whole) for total in totals])
        for error in (0.01, 0.05, 0.1, 0.3):
            spread = 3 * math.sqrt(error * (1 - error) / len(values))
            assert (values <= error).mean() <= error + spread, (level, n, error)


def test_in_between_losses_have_larger_p_values():
    for total in (0, 1, 3, 9):
        exact_tail = risk.p_value(total, 100, 0.1, whole=True)
        assert risk.p_value(total, 100, 0.1, whole=False) >= exact_tail * (1 - 1e-12)
    assert risk.p_value(10, 100, 0.1, whole=False) == 1
    assert risk.p_value(2.5, 100, 0.1, whole=False) < risk.p_value(3, 100, 0.1, whole=False)
    assert risk.p_value(0, 0, 0.1, whole=True) == 1


@pytest.mark.parametrize(
    ("lost", "n", "error", "limit"), [(0, 100, 0.05, 0.02951), (2, 50, 0.05, 0.12061), (5, 5, 0.1, 1)]
)
def test_the_bound_is_clopper_s_and_pearson_s(lost, n, error, limit):
    """Values of the one-sided interval."""
    assert risk.bound(lost, n, error, whole=True) == pytest.approx(limit, abs=2e-5)


@pytest.mark.parametrize("whole", [True, False])
def test_a_bound_is_the_level_that_just_passes(whole):
    limit = risk.bound(3, 200, 0.1, whole)
    assert risk.p_value(3, 200, limit, whole) <= 0.1
    assert risk.p_value(3, 200, limit - 1e-4, whole) > 0.1


def test_how_many_would_be_enough():
    needed = risk.enough(0.01, 0.02, 0.1, whole=True)
    assert risk.p_value(math.ceil(0.01 * needed), needed, 0.02, whole=True) <= 0.1
    assert risk.p_value(math.ceil(0.01 * needed / 2), needed // 2, 0.02, whole=True) > 0.1
    assert risk.enough(0.0, 0.01, 0.1, whole=True) == 230
    assert risk.enough(0.02, 0.02, 0.1, whole=True) is None
