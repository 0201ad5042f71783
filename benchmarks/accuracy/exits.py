"""Early exits at every threshold, worked out from answers that are there already.

A question exits where the small model's score reaches the threshold; both models' answers are known, so no
threshold has to be asked. ``--exit-threshold`` asks the real path all the same, to compare.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .cost import PairCost
from .metrics import RIGHT

#: Points of a curve, at most.
_POINTS = 101


@dataclass(frozen=True)
class ExitPoint:
    """One threshold (None: no exits) at one retention. share: of questions that exit. accuracy: of all
    answers. exited_accuracy: of those that exit. cost: relative to the large model alone, None where it is
    unknown. The ones ending in small_wrong: over the questions that the small model gets wrong."""

    threshold: float | None
    share: float
    accuracy: float
    exited_accuracy: float | None
    cost: float | None
    share_small_wrong: float | None
    accuracy_small_wrong: float | None


@dataclass(frozen=True)
class Questions:
    """Per question, float arrays [questions]: the exit score, the confidence, what the small and the large
    model's answers are worth; and in FLOPs: guide, consistency pass, the large model pruned, and the large
    model alone (arrays of NaN where unknown)."""

    score: np.ndarray
    confidence: np.ndarray
    small: np.ndarray
    large: np.ndarray
    guide: np.ndarray
    consistency: np.ndarray
    pruned: np.ndarray
    plain: np.ndarray

    @classmethod
    def of(
        cls,
        ids: Sequence[str],
        small: Mapping[str, dict],
        pruned: Mapping[str, dict],
        full: Mapping[str, dict],
        worth: Mapping[str, tuple[float, float]],
        cost: PairCost,
    ) -> "Questions":
        """From records by question. worth: of the small and of the large model's answer."""

        def column(value) -> np.ndarray:
            return np.array([value(id) for id in ids], dtype=float)

        return cls(
            score=column(lambda id: small[id]["score"]),
            confidence=column(lambda id: small[id]["confidence"]),
            small=column(lambda id: worth[id][0]),
            large=column(lambda id: worth[id][1]),
            guide=column(lambda id: cost.guide(small[id])),
            consistency=column(lambda id: cost.consistency(small[id])),
            pruned=column(lambda id: cost.large_answer(pruned[id])),
            plain=column(lambda id: cost.large_answer(full[id]) if id in full else np.nan),
        )


def at(questions: Questions, threshold: float | None) -> ExitPoint:
    """What happens at one threshold."""
    q = questions
    never = threshold is None
    exits = np.zeros(len(q.score), dtype=bool) if never else q.score >= threshold
    # A consistency of 1 bounds the score from above; below that the pass does not run.
    scored = np.zeros_like(exits) if never else (q.confidence + 1) / 2 >= threshold
    spent = q.guide + scored * q.consistency + ~exits * q.pruned
    worth = np.where(exits, q.small, q.large)
    wrong = q.small < RIGHT
    cost = float(spent.sum() / q.plain.sum())
    return ExitPoint(
        threshold=threshold,
        share=float(exits.mean()),
        accuracy=float(worth.mean()),
        exited_accuracy=float(q.small[exits].mean()) if exits.any() else None,
        cost=None if np.isnan(cost) else cost,
        share_small_wrong=float(exits[wrong].mean()) if wrong.any() else None,
        accuracy_small_wrong=float(worth[wrong].mean()) if wrong.any() else None,
    )


def curve(questions: Questions) -> list[ExitPoint]:
    """From no exits to all, one point per distinct score; evenly spaced ranks where there are many."""
    scores = np.unique(questions.score)[::-1]
    if len(scores) > _POINTS:
        scores = scores[np.linspace(0, len(scores) - 1, _POINTS).round().astype(int)]
    return [at(questions, None), *(at(questions, float(score)) for score in scores)]
