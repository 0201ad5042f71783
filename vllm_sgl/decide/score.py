"""The early-exit score (arXiv 2412.03324, section 3.3, "small VLM early exiting")."""

import math
from collections.abc import Sequence


def confidence(logprobs: Sequence[float]) -> float:
    """Geometric mean of the generated tokens' probabilities, in [0, 1]; 0 for an empty answer.

    logprobs: natural log-probability of each greedily generated token, the end token included.
    """
    return math.exp(sum(logprobs) / len(logprobs)) if logprobs else 0.0


def consistency(logprobs: Sequence[float]) -> float:
    """Product (not normalised) of the probabilities that the small model, shown few visual tokens,
    gives to its own answer, in [0, 1]; 0 for an empty answer."""
    return math.exp(sum(logprobs)) if logprobs else 0.0


def exit_score(confidence: float, consistency: float) -> float:
    """S, the mean of the two."""
    return (confidence + consistency) / 2
