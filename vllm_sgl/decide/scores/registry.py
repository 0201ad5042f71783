"""Exit scores by name. :data:`vllm_sgl.config.ExitScore` lists the same names, so that settings, request
keys, headers and profiles refuse any other."""

from collections.abc import Mapping

from vllm_sgl.config import ExitScore
from vllm_sgl.decide.scores.base import Score
from vllm_sgl.decide.scores.geometric_mean import GeometricMean
from vllm_sgl.decide.scores.lowest import Lowest
from vllm_sgl.decide.scores.paper import Paper
from vllm_sgl.decide.scores.product import Product
from vllm_sgl.decide.scores.product_consistency import ProductConsistency

#: Names as in ``--sgl-exit-score``.
SCORES: Mapping[ExitScore, Score] = {
    "paper": Paper(),
    "product": Product(),
    "lowest": Lowest(),
    "geometric_mean": GeometricMean(),
    "product_consistency": ProductConsistency(),
}
