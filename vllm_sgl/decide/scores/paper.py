"""The paper's score (arXiv 2412.03324, section 3.3)."""

from collections.abc import Sequence

from vllm_sgl.decide.scores.parts import confidence


class Paper:
    """S, the mean of confidence and consistency."""

    needs_consistency = True

    def of(self, logprobs: Sequence[float], consistency: float, /) -> float:
        return (confidence(logprobs) + consistency) / 2
