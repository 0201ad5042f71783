"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL (``Qwen/Qwen*-VL-*``): images of any size, M-RoPE.

DeepStack (Qwen3-VL) needs nothing here: its features are further columns of each visual token's own row.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from vllm.config import ModelConfig
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration
from vllm.model_executor.models.qwen2_vl import Qwen2VLForConditionalGeneration
from vllm.model_executor.models.qwen3_vl import Qwen3VLForConditionalGeneration
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_sgl.families.base import NO_SETTINGS
from vllm_sgl.families.pruned import Pruned
from vllm_sgl.visual.layout import Layout, LayoutOf, grid

#: How an image becomes patches and patches visual tokens; the names of the image processor's attributes.
_PATCHES = ("patch_size", "merge_size", "temporal_patch_size", "image_mean", "image_std")


class QwenVL:
    """Images are stretched to whole visual tokens, within limits on their pixels, and never cut."""

    pixel_fields: ClassVar[Mapping[str, str]] = {"image": "pixel_values"}
    count_fields: ClassVar[Mapping[str, str]] = {}
    image_processor: ClassVar[str] = "Qwen2VLImageProcessor"

    def vision_facts(self, model: ModelConfig) -> dict[str, object]:
        info = _info(model)
        processor = info.get_image_processor()
        settings = info._merge_and_resolve_mm_processor_kwargs({}).get("images_kwargs", {})
        return {
            **{name: settings.get(name, getattr(processor, name)) for name in _PATCHES},
            "pixels of an image": info._get_vision_size(settings, default_size=processor.size),
            "raw pixels": model.multimodal_config.mm_device_do_normalize,
        }

    def layout_of(self, model: ModelConfig, settings: Mapping[str, object] = NO_SETTINGS) -> LayoutOf:
        info = _info(model)
        processor, vision = info.get_image_processor(), info.get_hf_config().vision_config
        token = vision.patch_size * vision.spatial_merge_size

        def layout(width: int, height: int) -> Layout:
            stretched, _ = info._get_vision_info(
                image_width=width, image_height=height, num_frames=1, image_processor=processor,
                mm_kwargs=settings, modality="image",
            )  # fmt: skip
            return grid(stretched.width // token, stretched.height // token)

        return layout

    def tile_tokens(self, model: ModelConfig) -> None:
        return None


FAMILY = QwenVL()


def _info(model: ModelConfig) -> Any:
    return MULTIMODAL_REGISTRY.create_processor(model).info


class _PickPatches(Pruned):
    def pick(self, which: Sequence[int], **kwargs: Any) -> dict[str, object]:
        grids = kwargs.pop("image_grid_thw")
        patches = kwargs.pop("pixel_values").split(grids.prod(-1).tolist())
        return {
            **kwargs,
            "pixel_values": torch.cat([patches[index] for index in which]),
            "image_grid_thw": grids[list(which)],
        }


class SGLQwen2VLForConditionalGeneration(_PickPatches, Qwen2VLForConditionalGeneration):
    """vLLM's Qwen2-VL that keeps only chosen visual tokens, at their original positions."""


class SGLQwen2_5_VLForConditionalGeneration(_PickPatches, Qwen2_5_VLForConditionalGeneration):
    """vLLM's Qwen2.5-VL that keeps only chosen visual tokens, at their original positions."""


class SGLQwen3VLForConditionalGeneration(_PickPatches, Qwen3VLForConditionalGeneration):
    """vLLM's Qwen3-VL that keeps only chosen visual tokens, at their original positions."""
