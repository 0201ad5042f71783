"""The geometric mean of the answer's token probabilities."""

from collections.abc import Sequence

from vllm_sgl.decide.scores.parts import confidence


class GeometricMean:
    """The paper's confidence alone. It does not depend on the answer's length."""

    needs_consistency = False

    def of(self, logprobs: Sequence[float], consistency: float, /) -> float:
        return confidence(logprobs)
