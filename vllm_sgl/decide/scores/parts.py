"""What scores are made of (arXiv 2412.03324, section 3.3, "small VLM early exiting")."""

import math
from collections.abc import Sequence


def confidence(logprobs: Sequence[float]) -> float:
    """Geometric mean of the generated tokens' probabilities, in [0, 1]; 0 for an empty answer.

    logprobs: natural log-probability of each greedily generated token, the end token included.
    """
    return math.exp(sum(logprobs) / len(logprobs)) if logprobs else 0.0


def joint(logprobs: Sequence[float]) -> float:
    """Product (not normalised) of the tokens' probabilities, in [0, 1]; 0 for an empty answer.

    Of the probabilities that the small model, shown few visual tokens, gives to its own answer, this is the
    paper's consistency.
    """
    return math.exp(sum(logprobs)) if logprobs else 0.0
