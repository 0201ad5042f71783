"""Explanations without models."""

import numpy as np

from tests.support.images import random_image, random_video
from vllm_sgl.commands.explain.clip import SeenVideo
from vllm_sgl.commands.explain.explanation import Explanation, PrunedAnswer, Said, SeenImage
from vllm_sgl.core import VisualItem
from vllm_sgl.visual.layout import tiled

SHAPES = {
    "square": (2, 2), "wide": (6, 1), "tall": (1, 5), "single": (1, 1),
}  # fmt: skip


def explanation(*shapes, importance=None, frames=0, **changes):
    """An explanation of one image per shape, at two retentions; 4 visual tokens along a tile's side.

    frames: of a video behind the images, 3 x 2 visual tokens each and one at its end; 0 for none.
    """
    images, kept = [], []
    for seed, shape in enumerate(shapes):
        columns, rows = SHAPES[shape]
        layout = tiled(columns, rows, 4, thumbnail=columns * rows > 1)
        scores = np.random.default_rng(seed).lognormal(size=layout.visual_tokens).astype(np.float32)
        images.append(
            SeenImage(
                f"{shape}.png", random_image(seed, columns * 60, rows * 60), layout,
                scores if importance is None else np.full_like(scores, importance),
            )
        )  # fmt: skip
        kept.append(np.arange(0, layout.visual_tokens, 3))
    if frames:
        item = VisualItem("video", 6 * frames + 1, 6, rest=1)
        scores = np.random.default_rng(9).lognormal(size=item.visual_tokens).astype(np.float32)
        images.append(SeenVideo("clip.mp4", random_video(9, 90, 60, frames), item, 3, 2, scores))
        kept.append(np.array([0, 1, 8, item.visual_tokens - 1]))
    fields = {
        "large": "some/large", "small": "some/small", "question": "What costs $5?",
        "query_rows": "prompt+generated", "positions": "original", "images": images,
        "small_answer": Said("42", 2, True), "large_answer": Said("forty-two", 5, True),
        "pruned": [
            PrunedAnswer(0.35, kept, Said("42", 2, True)), PrunedAnswer(0.02, kept, Said("", 8, False)),
        ],
        "confidence": 0.8, "consistency": 0.4, "score": 0.6,
        "exit_threshold": None, "decision": None, "reason": None,
    }  # fmt: skip
    return Explanation(**{**fields, **changes})
