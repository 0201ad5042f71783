"""vLLM's image processor for InternVL: how it will tile an image, asked of vLLM's own functions."""

import math
from dataclasses import dataclass

from vllm.config import ModelConfig
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.transformers_utils.processors.internvl import calculate_internvl_targets


@dataclass(frozen=True)
class Tiling:
    """How a model tiles images.

    side: of a tile, in pixels.
    cells: visual tokens along a tile's side.
    thumbnail: whether an image of several tiles is followed by a thumbnail of the whole, one tile large.
    ratios: every grid of tiles, (columns, rows), that an image may be stretched to.
    """

    side: int
    cells: int
    thumbnail: bool
    ratios: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, model: ModelConfig) -> "Tiling":
        processor = MULTIMODAL_REGISTRY.create_processor(model).info.get_hf_processor()
        return cls(
            side=processor.image_processor.image_size,
            cells=math.isqrt(processor.image_seq_length),
            thumbnail=processor.image_processor.use_thumbnail,
            # A thumbnail is no part of the grid, and vLLM would count it in.
            ratios=tuple(processor.resolve_target_ratios(use_thumbnail=False)),
        )

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows of tiles of an image of this size in pixels."""
        _, across, down = calculate_internvl_targets(
            orig_width=width,
            orig_height=height,
            target_ratios=list(self.ratios),
            image_size=self.side,
            use_thumbnail=False,
        )
        return across // self.side, down // self.side
