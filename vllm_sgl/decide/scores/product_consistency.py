"""The product of the answer's token probabilities, times consistency."""

from collections.abc import Sequence

from vllm_sgl.decide.scores.parts import joint


class ProductConsistency:
    """The probability of the answer on all visual tokens, times that on few."""

    needs_consistency = True

    def of(self, logprobs: Sequence[float], consistency: float, /) -> float:
        return joint(logprobs) * consistency
