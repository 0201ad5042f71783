"""Metrics against values worked out by hand or published."""

import pytest

from benchmarks.accuracy.metrics import auc, mean
from vllm_sgl.evaluate.metrics import anls, exact_match, levenshtein, normalise, vqa_accuracy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" The  Sign. ", "the sign"),
        ("B-7!", "b7"),
        ("3.5", "3.5"),
        ("17:30.", "17:30"),
        ("1,000", "1000"),
        (".", ""),
        ("Straße_7", "straße7"),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected


def test_exact_match_takes_any_reference():
    assert exact_match("42.", ["43", "42"]) == 1
    assert exact_match("3.5", ["35"]) == 0
    assert exact_match("", ["42"]) == 0


@pytest.mark.parametrize(("matches", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_vqa_accuracy_of_ten_humans(matches, expected):
    """The values that VQAv2's evaluation gives for so many equal answers."""
    answers = ["red"] * matches + [f"other {n}" for n in range(10 - matches)]
    assert vqa_accuracy("Red", answers) == pytest.approx(expected)


def test_vqa_accuracy_of_fewer_references_is_exact_match():
    assert vqa_accuracy("red", ["red"]) == 1
    assert vqa_accuracy("blue", ["red", "green"]) == 0


def test_levenshtein():
    assert levenshtein("kitten", "sitting") == 3
    assert levenshtein("", "abc") == levenshtein("abc", "") == 3
    assert levenshtein("same", "same") == 0


@pytest.mark.parametrize(
    ("answer", "references", "expected"),
    [
        ("Hello World", ["hello world"], 1),
        ("hella", ["hello"], 0.8),
        ("abcd", ["abxy"], 0),  # a distance of one half is too far
        ("abcde", ["zzzzz", "abcdx"], 0.8),
        ("", ["abc"], 0),
    ],
)
def test_anls(answer, references, expected):
    assert anls(answer, references) == pytest.approx(expected)


def test_mean_of_right_and_wrong_has_wilsons_interval():
    """10 of 20: the published interval is [0.299, 0.701]."""
    found = mean([1.0] * 10 + [0.0] * 10)
    assert (found.value, found.n) == (0.5, 20)
    assert (found.low, found.high) == (pytest.approx(0.2993, abs=1e-4), pytest.approx(0.7007, abs=1e-4))


def test_interval_holds_the_value_at_the_ends():
    for value in (0.0, 1.0):
        found = mean([value] * 7)
        assert found.low <= found.value == value <= found.high
    assert mean([]).value is None


def test_mean_of_shares_is_bootstrapped():
    found = mean([0.2, 0.4, 0.9, 0.5] * 25)
    assert found.value == pytest.approx(0.5)
    deviation = 0.2549 / 10  # of the mean of 100
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)


def test_auc_counts_ties_half():
    assert auc([0.1, 0.2, 0.3, 0.4], [False, False, True, True]).value == 1
    assert auc([0.4, 0.3, 0.2, 0.1], [False, False, True, True]).value == 0
    assert auc([0.5, 0.5, 0.5], [False, True, True]).value == 0.5
    # Pairs (right, wrong): 0.8 over 0.5, 0.8 over 0.8 (tie), 0.3 under both.
    assert auc([0.8, 0.3, 0.5, 0.8], [True, True, False, False]).value == pytest.approx(1.5 / 4)
    assert auc([0.5, 0.6], [True, True]).value is None
