"""InternVL in transformers' own format: InternVL3 and 3.5, repositories whose names end in ``-hf``."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas
from vllm.config import ModelConfig
from vllm.model_executor.models.interns1 import InternS1ForConditionalGeneration
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_sgl.families.base import NO_SETTINGS
from vllm_sgl.families.tiled import PickRows
from vllm_sgl.visual.layout import Layout, LayoutOf, tiled
from vllm_sgl.visual.tiles import Encoded, Tiles, encoded_as

#: How an image becomes tiles: the image processor's attributes, and the chat format's names for them.
_TILING = {
    "size": "image_size",
    "min_patches": "min_dynamic_patch",
    "max_patches": "max_dynamic_patch",
    "crop_to_patches": "dynamic_image_size",
}
#: The fields that hold the pixels, and those that say how many tiles there are.
_PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}
_COUNTS = {"image": "image_num_patches", "video": "video_num_patches"}
#: vLLM has one class for both architectures.
_FORMAT = "InternVL (-hf)"


class InternVLHF:
    """Tiled as in InternVL's chat format; the processor is transformers'."""

    pixel_fields: ClassVar[Mapping[str, str]] = _PIXELS
    image_processors: ClassVar[tuple[str, ...]] = ("GotOcr2ImageProcessor",)
    prompt_formats: ClassVar[Mapping[str, str]] = {
        "InternVLForConditionalGeneration": _FORMAT,
        "InternS1ForConditionalGeneration": _FORMAT,
    }

    def vision_facts(self, model: ModelConfig) -> dict[str, object]:
        processor, settings = _processor(model)
        images = processor.image_processor
        facts = {name: settings.get(own, getattr(images, own)) for own, name in _TILING.items()}
        side: Any = facts["image_size"]
        facts["image_size"] = side["height"] if side["height"] == side["width"] else dict(side)
        # Several tiles are always followed by a thumbnail.
        return {**facts, "use_thumbnail": True, "visual tokens per tile": processor.image_seq_length}

    def layout_of(self, model: ModelConfig, settings: Mapping[str, object] = NO_SETTINGS) -> LayoutOf:
        processor, settings = _processor(model, settings)
        images = processor.image_processor
        least, most = (settings.get(name, getattr(images, name)) for name in ("min_patches", "max_patches"))
        tile = images.size["height"], images.size["width"]
        cells = math.isqrt(processor.image_seq_length)

        def layout(width: int, height: int) -> Layout:
            tiles = images.get_number_of_image_patches(height, width, settings)
            columns, rows = (
                get_optimal_tiled_canvas((height, width), tile, least, most) if tiles > 1 else (1, 1)
            )
            return tiled(columns, rows, cells, thumbnail=tiles > columns * rows)

        return layout

    def tiles(self, model: ModelConfig) -> Mapping[str, Tiles]:
        return SGLInternVLForConditionalGeneration.tiles(math.isqrt(_processor(model)[0].image_seq_length))

    def encoded(self, model: ModelConfig) -> Mapping[str, Encoded]:
        size = model.hf_config.vision_config.image_size
        sides = (size, size) if isinstance(size, int) else tuple(size)
        return {name: encoded_as(tiles, *sides) for name, tiles in self.tiles(model).items()}


FAMILY = InternVLHF()


def _processor(
    model: ModelConfig, settings: Mapping[str, object] = NO_SETTINGS
) -> tuple[Any, dict[str, Any]]:
    """The processor, and what a server or a request set for it."""
    info = MULTIMODAL_REGISTRY.create_processor(model).info
    return info.get_hf_processor(), dict(info.ctx.get_merged_mm_kwargs(settings))


class SGLInternVLForConditionalGeneration(PickRows, InternS1ForConditionalGeneration):
    """vLLM's class of this format that keeps only chosen visual tokens, at their original positions."""

    pixel_field_of = _PIXELS
    count_field_of = _COUNTS


class SGLInternS1ForConditionalGeneration(SGLInternVLForConditionalGeneration):
    """vLLM's Intern-S1 that keeps only chosen visual tokens, at their original positions."""
