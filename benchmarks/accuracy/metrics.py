"""What an answer is worth, and how sure a mean over questions is. Pure: strings and numbers only."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

#: An answer worth less is wrong: only VQA accuracy and ANLS have values in between.
RIGHT = 0.5
#: Two-sided 95 % quantile of the normal distribution.
_Z = 1.959964
_RESAMPLES = 2000
_ANLS_THRESHOLD = 0.5
#: Human answers per question in VQAv2 and its relatives.
_HUMANS = 10

# Between digits a dot or a colon carries meaning (3.5, 17:30); all other punctuation does not.
_PUNCTUATION = re.compile(r"(?<!\d)[.:]|[.:](?!\d)|[^\w\s.:]|_")


def normalise(text: str) -> str:
    """Lower case, no punctuation, single spaces."""
    return " ".join(_PUNCTUATION.sub("", text.lower()).split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 where the answer equals any reference after :func:`normalise`, else 0."""
    return float(normalise(answer) in {normalise(reference) for reference in references})


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """min(1, matches / 3), averaged over all choices of nine of the ten human answers ("VQA: Visual
    Question Answering", arXiv 1505.00468; the averaging is VQAv2's evaluation).

    Defined for ten references; for any other number it is :func:`exact_match`. Of the official clean-up,
    the tables of contractions and number words are left out.
    """
    if len(references) != _HUMANS:
        return exact_match(answer, references)
    matches = sum(exact_match(answer, [reference]) for reference in references)
    without_a_match = min(1.0, (matches - 1) / 3)
    without_another = min(1.0, matches / 3)
    return (matches * without_a_match + (_HUMANS - matches) * without_another) / _HUMANS


def anls(answer: str, references: Sequence[str]) -> float:
    """Average normalised Levenshtein similarity of one question: 1 - distance / longer length of the best
    reference, 0 where that is below 0.5 ("Scene Text Visual Question Answering", arXiv 1905.13648)."""
    return max(_similarity(answer, reference) for reference in references)


METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "exact": exact_match,
    "vqa": vqa_accuracy,
    "anls": anls,
}


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


def levenshtein(a: str, b: str) -> int:
    """The fewest insertions, deletions and replacements of one character that turn a into b."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def _similarity(answer: str, reference: str) -> float:
    a, b = (" ".join(text.lower().split()) for text in (answer, reference))
    distance = levenshtein(a, b) / max(len(a), len(b), 1)
    return 1 - distance if distance < _ANLS_THRESHOLD else 0.0


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
