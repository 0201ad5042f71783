"""The product of the answer's token probabilities."""

from collections.abc import Sequence

from vllm_sgl.decide.scores.parts import joint


class Product:
    """The probability of the whole answer. It falls with the answer's length."""

    needs_consistency = False

    def of(self, logprobs: Sequence[float], consistency: float, /) -> float:
        return joint(logprobs)
