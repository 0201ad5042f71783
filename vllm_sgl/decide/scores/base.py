"""The protocol of an exit score. Importable without torch and without vLLM."""

from collections.abc import Sequence
from typing import Protocol


class Score(Protocol):
    """How much the small model's answer is trusted. Stateless.

    needs_consistency: whether it takes a second pass of the small model, shown few visual tokens.
    """

    needs_consistency: bool

    def of(self, logprobs: Sequence[float], consistency: float, /) -> float:
        """The score, in [0, 1]; without a second pass 0 for an empty answer.

        Args:
            logprobs: natural log-probability of each token of the answer, the end token included.
            consistency: what the second pass gives to the answer, in [0, 1]; has no effect without one. The
                score never falls as it rises, so a consistency of 1 bounds the score from above.
        """
        ...
