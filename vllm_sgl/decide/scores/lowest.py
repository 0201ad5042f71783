"""The lowest of the answer's token probabilities."""

import math
from collections.abc import Sequence


class Lowest:
    """The probability of the token that the small model was least sure of."""

    needs_consistency = False

    def of(self, logprobs: Sequence[float], consistency: float, /) -> float:
        return math.exp(min(logprobs)) if logprobs else 0.0
