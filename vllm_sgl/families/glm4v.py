"""GLM-4.1V, 4.5V and 4.6V (``zai-org/GLM-4*V*``): as Qwen-VL, but for limits on pixels that count both frames
of an image, and videos whose frames are marked in the prompt."""

from collections.abc import Mapping
from typing import Any, ClassVar

from transformers.models.glm4v.image_processing_glm4v import smart_resize
from vllm.config import ModelConfig
from vllm.model_executor.models.glm4_1v import (
    Glm4vForConditionalGeneration,
    Glm4vMoeForConditionalGeneration,
)

from vllm_sgl.families.base import NO_SETTINGS
from vllm_sgl.families.patches import PATCHES, Patches, PickPatches, info_of
from vllm_sgl.visual.layout import Layout, LayoutOf, grid

_FORMAT = "GLM-4V"


class Glm4v(Patches):
    image_processors: ClassVar[tuple[str, ...]] = ("Glm4vImageProcessor", "Glm46VImageProcessor")
    prompt_formats: ClassVar[Mapping[str, str]] = {
        "Glm4vForConditionalGeneration": _FORMAT,
        "Glm4vMoeForConditionalGeneration": _FORMAT,
    }

    def vision_facts(self, model: ModelConfig) -> dict[str, object]:
        processor, settings = _processor(model, NO_SETTINGS)
        return {
            **{name: settings.get(name, getattr(processor, name)) for name in PATCHES},
            "pixels of two frames": _limits(processor, settings),
            "raw pixels": model.multimodal_config.mm_device_do_normalize,
        }

    def layout_of(self, model: ModelConfig, settings: Mapping[str, object] = NO_SETTINGS) -> LayoutOf:
        processor, settings = _processor(model, settings)
        limits, token = _limits(processor, settings), processor.patch_size * processor.merge_size
        frames = processor.temporal_patch_size

        def layout(width: int, height: int) -> Layout:
            down, across = smart_resize(
                frames, height, width, frames, token, limits["shortest_edge"], limits["longest_edge"]
            )
            return grid(across // token, down // token)

        return layout


def _processor(model: ModelConfig, settings: Mapping[str, object]) -> tuple[Any, Mapping[str, Any]]:
    """The image processor, and what a server or a request set for it."""
    info = info_of(model)
    return info.get_image_processor(), info.ctx.get_merged_mm_kwargs(settings)


def _limits(processor: Any, settings: Mapping[str, Any]) -> dict[str, int]:
    """Pixels that the two frames of an image have together, at least and at most."""
    own = {name: getattr(processor.size, name) for name in ("shortest_edge", "longest_edge")}
    return {**own, **(settings.get("size") or {})}


FAMILY = Glm4v()


class SGLGlm4vForConditionalGeneration(PickPatches, Glm4vForConditionalGeneration):
    """vLLM's GLM-4.1V and 4.6V-Flash that keep only chosen visual tokens, at their original positions."""


class SGLGlm4vMoeForConditionalGeneration(PickPatches, Glm4vMoeForConditionalGeneration):
    """vLLM's GLM-4.5V and 4.6V that keep only chosen visual tokens, at their original positions."""
