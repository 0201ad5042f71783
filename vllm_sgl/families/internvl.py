"""InternVL in its own chat format: InternVL2, 2.5, 3 and 3.5 (``OpenGVLab/InternVL*``)."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from vllm.config import ModelConfig
from vllm.model_executor.models.internvl import InternVLChatModel
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.transformers_utils.processors.internvl import calculate_internvl_targets

from vllm_sgl.families.base import NO_SETTINGS
from vllm_sgl.families.tiled import PickRows
from vllm_sgl.visual.layout import Layout, LayoutOf, tiled
from vllm_sgl.visual.tiles import Encoded, Tiles, encoded_as

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = (
    "vllm.model_executor.models.internvl:InternVLProcessingInfo.get_hf_processor.image_seq_length",
    "vllm.model_executor.models.internvl:InternVLProcessingInfo.get_hf_processor.resolve_target_ratios"
    "(use_thumbnail)",
    "vllm.model_executor.models.internvl:InternVLProcessingInfo.get_hf_processor.image_processor.image_size",
    "vllm.model_executor.models.internvl:InternVLProcessingInfo.get_hf_processor.image_processor.min_dynamic_patch",
    "vllm.model_executor.models.internvl:InternVLProcessingInfo.get_hf_processor.image_processor.max_dynamic_patch",
    "vllm.model_executor.models.internvl:InternVLProcessingInfo.get_hf_processor.image_processor.dynamic_image_size",
    "vllm.model_executor.models.internvl:InternVLProcessingInfo.get_hf_processor.image_processor.use_thumbnail",
)

#: How an image becomes tiles; the names of the image processor's attributes.
_TILING = (
    "image_size", "min_dynamic_patch", "max_dynamic_patch", "dynamic_image_size", "use_thumbnail",
)  # fmt: skip
#: The fields that hold the pixels, and those that say how many tiles there are.
_PIXELS = {"image": "pixel_values_flat", "video": "pixel_values_flat_video"}
_COUNTS = {"image": "image_num_patches", "video": "video_num_patches"}


class InternVL:
    """Images are stretched to a grid of square tiles, and followed by a thumbnail where that has several."""

    pixel_fields: ClassVar[Mapping[str, str]] = _PIXELS
    image_processors: ClassVar[tuple[str, ...]] = ("InternVLImageProcessor",)
    prompt_formats: ClassVar[Mapping[str, str]] = {}

    def vision_facts(self, model: ModelConfig) -> dict[str, object]:
        processor = _processor(model)
        facts = {name: getattr(processor.image_processor, name, None) for name in _TILING}
        return {**facts, "visual tokens per tile": processor.image_seq_length}

    def layout_of(self, model: ModelConfig, settings: Mapping[str, object] = NO_SETTINGS) -> LayoutOf:
        processor = _processor(model, settings)
        side: int = processor.image_processor.image_size
        cells = math.isqrt(processor.image_seq_length)
        thumbnail: bool = processor.image_processor.use_thumbnail
        # A thumbnail is no part of the grid, and vLLM would count it in.
        ratios = list(processor.resolve_target_ratios(use_thumbnail=False))

        def layout(width: int, height: int) -> Layout:
            _, across, down = calculate_internvl_targets(
                orig_width=width, orig_height=height, target_ratios=ratios, image_size=side,
                use_thumbnail=False,
            )  # fmt: skip
            columns, rows = across // side, down // side
            return tiled(columns, rows, cells, thumbnail and columns * rows > 1)

        return layout

    def tiles(self, model: ModelConfig) -> Mapping[str, Tiles]:
        return SGLInternVLChatModel.tiles(math.isqrt(_processor(model).image_seq_length))

    def encoded(self, model: ModelConfig) -> Mapping[str, Encoded]:
        side = model.hf_config.vision_config.image_size
        return {name: encoded_as(tiles, side, side) for name, tiles in self.tiles(model).items()}


FAMILY = InternVL()


def _processor(model: ModelConfig, settings: Mapping[str, object] = NO_SETTINGS) -> Any:
    return MULTIMODAL_REGISTRY.create_processor(model).info.get_hf_processor(**settings)


class SGLInternVLChatModel(PickRows, InternVLChatModel):
    """``InternVLChatModel`` that keeps only chosen visual tokens, at their original positions."""

    pixel_field_of = _PIXELS
    count_field_of = _COUNTS
