"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL (``Qwen/Qwen*-VL-*``): images of any size, videos by two frames, M-RoPE.

DeepStack (Qwen3-VL) needs nothing here: its features are further columns of each visual token's own row.
Attention in the vision encoder stays within an image or a pair of frames, so pairs can be encoded one by one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from vllm.config import ModelConfig
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration
from vllm.model_executor.models.qwen2_vl import Qwen2VLForConditionalGeneration
from vllm.model_executor.models.qwen3_5 import (
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeForConditionalGeneration,
)
from vllm.model_executor.models.qwen3_vl import Qwen3VLForConditionalGeneration
from vllm.model_executor.models.qwen3_vl_moe import Qwen3VLMoeForConditionalGeneration
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_sgl.families.base import NO_SETTINGS
from vllm_sgl.model.pruned import Pruned
from vllm_sgl.visual.layout import Layout, LayoutOf, grid
from vllm_sgl.visual.tiles import Encoded, Item, Tiles, TileSize, encoded_as

#: How an image becomes patches and patches visual tokens; the names of the image processor's attributes.
_PATCHES = ("patch_size", "merge_size", "temporal_patch_size", "image_mean", "image_std")
#: A video's patches, and its numbers of patches along time, height and width, which positions rest on.
_VIDEO, _VIDEO_GRID = "pixel_values_videos", "video_grid_thw"
_COLOURS = 3
#: The grid of an image.
_IMAGE_GRID = "image_grid_thw"
#: Architectures with the prompts and items of Qwen3-VL, whatever their decoders are.
_LIKE_QWEN3_VL = (
    "Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration",
    "Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration",
)  # fmt: skip


class QwenVL:
    """Images and frames are stretched to whole visual tokens, within limits on their pixels, never cut."""

    pixel_fields: ClassVar[Mapping[str, str]] = {"image": "pixel_values", "video": _VIDEO}
    image_processors: ClassVar[tuple[str, ...]] = ("Qwen2VLImageProcessor",)
    prompt_formats: ClassVar[Mapping[str, str]] = dict.fromkeys(_LIKE_QWEN3_VL, "Qwen3-VL")

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

    def tiles(self, model: ModelConfig) -> Mapping[str, Tiles]:
        merge: int = _info(model).get_hf_config().vision_config.spatial_merge_size

        def pair(item: Item) -> TileSize:
            _, down, across = item[_VIDEO_GRID].data.tolist()
            return TileSize(down * across, down // merge, across // merge)

        return {"video": Tiles(_VIDEO, pair)}

    def encoded(self, model: ModelConfig) -> Mapping[str, Encoded]:
        vision = _info(model).get_hf_config().vision_config
        patch = _COLOURS * vision.temporal_patch_size * vision.patch_size**2

        def of_image(item: Item) -> int:
            taken = item[self.pixel_fields["image"]].data.shape[-1] == patch
            return int(item[_IMAGE_GRID].data.prod()) // vision.spatial_merge_size**2 if taken else 0

        return {"image": of_image, "video": encoded_as(self.tiles(model)["video"], patch)}


FAMILY = QwenVL()


def _info(model: ModelConfig) -> Any:
    return MULTIMODAL_REGISTRY.create_processor(model).info


class _PickPatches(Pruned):
    def tile_counts(self, said: Sequence[int | None], **kwargs: Any) -> list[int]:
        if _VIDEO not in kwargs:
            return [1] * len(said)
        grids = kwargs[_VIDEO_GRID].tolist()
        counts = [t if count is None else count for (t, _, _), count in zip(grids, said, strict=True)]
        patches = sum(count * h * w for (_, h, w), count in zip(grids, counts, strict=True))
        if patches != len(kwargs[_VIDEO]):
            raise RuntimeError(f"expected {patches} patches of a video, received {len(kwargs[_VIDEO])}")
        return counts

    def pick(self, which: Sequence[int], counts: Sequence[int], **kwargs: Any) -> dict[str, object]:
        pixels, grid = (_VIDEO, _VIDEO_GRID) if _VIDEO in kwargs else ("pixel_values", _IMAGE_GRID)
        grids = kwargs[grid].repeat_interleave(torch.tensor(counts), 0)
        grids[:, 0] = 1
        patches = kwargs[pixels].split(grids.prod(-1).tolist())
        # What else a video has, such as its seconds, is about positions.
        return {pixels: torch.cat([patches[number] for number in which]), grid: grids[list(which)]}


class SGLQwen2VLForConditionalGeneration(_PickPatches, Qwen2VLForConditionalGeneration):
    """vLLM's Qwen2-VL that keeps only chosen visual tokens, at their original positions."""


class SGLQwen2_5_VLForConditionalGeneration(_PickPatches, Qwen2_5_VLForConditionalGeneration):
    """vLLM's Qwen2.5-VL that keeps only chosen visual tokens, at their original positions."""


class SGLQwen3VLForConditionalGeneration(_PickPatches, Qwen3VLForConditionalGeneration):
    """vLLM's Qwen3-VL that keeps only chosen visual tokens, at their original positions."""


class SGLQwen3VLMoeForConditionalGeneration(_PickPatches, Qwen3VLMoeForConditionalGeneration):
    """vLLM's Qwen3-VL MoE that keeps only chosen visual tokens, at their original positions."""


class SGLQwen3_5ForConditionalGeneration(_PickPatches, Qwen3_5ForConditionalGeneration):
    """vLLM's Qwen3.5 and 3.6 that keep only chosen visual tokens, at their original positions."""


class SGLQwen3_5MoeForConditionalGeneration(_PickPatches, Qwen3_5MoeForConditionalGeneration):
    """vLLM's Qwen3.5 and 3.6 MoE that keep only chosen visual tokens, at their original positions."""
