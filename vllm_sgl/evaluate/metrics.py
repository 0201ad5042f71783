"""Scores of answers, in [0, 1]. Pure: strings and numbers only."""

from collections.abc import Callable, Sequence

from vllm_sgl.telemetry.agreement import exact_match, normalise

__all__ = ["METRICS", "anls", "exact_match", "levenshtein", "normalise", "vqa_accuracy"]

_ANLS_THRESHOLD = 0.5
#: Human answers per question in VQAv2 and its relatives.
_HUMANS = 10


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
