"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL (``Qwen/Qwen*-VL-*``): images of any size, videos by two frames, M-RoPE.

DeepStack (Qwen3-VL) needs nothing here: its features are further columns of each visual token's own row.
"""

from collections.abc import Mapping
from typing import ClassVar

from vllm.config import ModelConfig
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration
from vllm.model_executor.models.qwen2_vl import Qwen2VLForConditionalGeneration
from vllm.model_executor.models.qwen3_5 import (
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeForConditionalGeneration,
)
from vllm.model_executor.models.qwen3_vl import Qwen3VLForConditionalGeneration
from vllm.model_executor.models.qwen3_vl_moe import Qwen3VLMoeForConditionalGeneration

from vllm_sgl.families.base import NO_SETTINGS
from vllm_sgl.families.patches import PATCHES, Patches, PickPatches, info_of
from vllm_sgl.visual.layout import Layout, LayoutOf, grid

#: Architectures with the prompts and items of Qwen3-VL, whatever their decoders are.
_LIKE_QWEN3_VL = (
    "Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration",
    "Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration",
)  # fmt: skip


class QwenVL(Patches):
    """Images and frames are stretched to whole visual tokens, within limits on their pixels, never cut."""

    image_processors: ClassVar[tuple[str, ...]] = ("Qwen2VLImageProcessor",)
    prompt_formats: ClassVar[Mapping[str, str]] = dict.fromkeys(_LIKE_QWEN3_VL, "Qwen3-VL")

    def vision_facts(self, model: ModelConfig) -> dict[str, object]:
        info = info_of(model)
        processor = info.get_image_processor()
        settings = info._merge_and_resolve_mm_processor_kwargs({}).get("images_kwargs", {})
        return {
            **{name: settings.get(name, getattr(processor, name)) for name in PATCHES},
            "pixels of an image": info._get_vision_size(settings, default_size=processor.size),
            "raw pixels": model.multimodal_config.mm_device_do_normalize,
        }

    def layout_of(self, model: ModelConfig, settings: Mapping[str, object] = NO_SETTINGS) -> LayoutOf:
        info = info_of(model)
        processor, vision = info.get_image_processor(), info.get_hf_config().vision_config
        token = vision.patch_size * vision.spatial_merge_size

        def layout(width: int, height: int) -> Layout:
            stretched, _ = info._get_vision_info(
                image_width=width, image_height=height, num_frames=1, image_processor=processor,
                mm_kwargs=settings, modality="image",
            )  # fmt: skip
            return grid(stretched.width // token, stretched.height // token)

        return layout


FAMILY = QwenVL()


class SGLQwen2VLForConditionalGeneration(PickPatches, Qwen2VLForConditionalGeneration):
    """vLLM's Qwen2-VL that keeps only chosen visual tokens, at their original positions."""


class SGLQwen2_5_VLForConditionalGeneration(PickPatches, Qwen2_5_VLForConditionalGeneration):
    """vLLM's Qwen2.5-VL that keeps only chosen visual tokens, at their original positions."""


class SGLQwen3VLForConditionalGeneration(PickPatches, Qwen3VLForConditionalGeneration):
    """vLLM's Qwen3-VL that keeps only chosen visual tokens, at their original positions."""


class SGLQwen3VLMoeForConditionalGeneration(PickPatches, Qwen3VLMoeForConditionalGeneration):
    """vLLM's Qwen3-VL MoE that keeps only chosen visual tokens, at their original positions."""


class SGLQwen3_5ForConditionalGeneration(PickPatches, Qwen3_5ForConditionalGeneration):
    """vLLM's Qwen3.5 and 3.6 that keep only chosen visual tokens, at their original positions."""


class SGLQwen3_5MoeForConditionalGeneration(PickPatches, Qwen3_5MoeForConditionalGeneration):
    """vLLM's Qwen3.5 and 3.6 MoE that keep only chosen visual tokens, at their original positions."""
