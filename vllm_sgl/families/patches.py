"""What Qwen-VL's and GLM-V's families share: patches of images of any size, and of a video's pairs of frames.

Attention in the vision encoder stays within an image or a pair of frames, so pairs can be encoded one by one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from vllm.config import ModelConfig
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_sgl.model.pruned import Pruned
from vllm_sgl.visual.tiles import Encoded, Item, Tiles, TileSize, encoded_as

#: How an image becomes patches and patches visual tokens; the names of the image processor's attributes.
PATCHES = ("patch_size", "merge_size", "temporal_patch_size", "image_mean", "image_std")
#: A video's patches, and its numbers of patches along time, height and width, which positions rest on.
_VIDEO, _VIDEO_GRID = "pixel_values_videos", "video_grid_thw"
_COLOURS = 3
#: The grid of an image.
_IMAGE_GRID = "image_grid_thw"


def info_of(model: ModelConfig) -> Any:
    """vLLM's processing info of a model."""
    return MULTIMODAL_REGISTRY.create_processor(model).info


class Patches:
    """Base of a family: images and frames are stretched to whole visual tokens, never cut."""

    pixel_fields: ClassVar[Mapping[str, str]] = {"image": "pixel_values", "video": _VIDEO}

    def tiles(self, model: ModelConfig) -> Mapping[str, Tiles]:
        merge: int = info_of(model).get_hf_config().vision_config.spatial_merge_size

        def pair(item: Item) -> TileSize:
            _, down, across = item[_VIDEO_GRID].data.tolist()
            return TileSize(down * across, down // merge, across // merge)

        return {"video": Tiles(_VIDEO, pair)}

    def encoded(self, model: ModelConfig) -> Mapping[str, Encoded]:
        vision = info_of(model).get_hf_config().vision_config
        patch = _COLOURS * vision.temporal_patch_size * vision.patch_size**2

        def of_image(item: Item) -> int:
            taken = item[self.pixel_fields["image"]].data.shape[-1] == patch
            return int(item[_IMAGE_GRID].data.prod()) // vision.spatial_merge_size**2 if taken else 0

        return {"image": of_image, "video": encoded_as(self.tiles(model)["video"], patch)}


class PickPatches(Pruned):
    """Mixin, as :class:`Pruned`: an image is one tile, a video a tile for each pair of frames."""

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
