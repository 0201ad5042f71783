"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: patches of any number, M-RoPE, and DeepStack in the last."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby

import torch
from transformers import AutoImageProcessor

from .reference import Reference

Patches = Mapping[str, torch.Tensor]


class Qwen2VL(Reference):
    """An image is ``pixel_values`` [patches, channels * frames * side * side], normalised or, as uint8, not
    yet, and ``image_grid_thw`` [3]: patches along time, height and width. A video is the same under
    ``pixel_values_videos`` and ``video_grid_thw``, and in Qwen2.5-VL ``second_per_grid_ts``, a scalar.

    What follows an image or video continues after the largest of its position ids, as the model was published
    ("Qwen2-VL", arXiv 2409.12191, section 2.1). transformers 5.19 continues after its rows and columns, which
    is the same where a video has no more steps in time than the longer of its sides.
    """

    def features(self, image: Patches) -> list[torch.Tensor]:
        output = self._encode(image)
        return [output.pooler_output[0]]

    def positions(self, token_ids: torch.Tensor, images: Sequence[Patches]) -> tuple[torch.Tensor, int]:
        merge, runs = self.model.config.vision_config.spatial_merge_size, iter(self._runs(images))
        parts, after = [torch.empty(3, 0, dtype=torch.int64)], 0
        is_visual = torch.isin(token_ids, torch.tensor([self.image_token_id, self.video_token_id]))
        for visual, group in groupby(is_visual.tolist()):
            length = len(list(group))
            if visual:
                grid, interval = next(runs)
                part = self.model.model.get_vision_position_ids(after, grid, 1, merge, interval)
                assert part.shape[1] == length, "placeholders and grids differ"
            else:
                part = (after + torch.arange(length)).expand(3, -1)
            parts.append(part)
            after = int(part.max()) + 1
        return torch.cat(parts, dim=1), after

    def _runs(self, images: Sequence[Patches]) -> Iterator[tuple[torch.Tensor, float]]:
        """Each run of visual tokens in a prompt: its grid, and how far apart its steps in time are."""
        vision = self.model.config.vision_config
        for image in images:
            seconds = float(image.get("second_per_grid_ts", 1))
            grid = image.get("image_grid_thw", image.get("video_grid_thw"))
            yield grid, getattr(vision, "tokens_per_second", 1) * seconds if "video_grid_thw" in image else 1

    def _encode(self, image: Patches):
        pixels = self._normalised(image)
        if "video_grid_thw" in image:
            return self.model.model.get_video_features(pixels, image["video_grid_thw"][None])
        return self.model.model.get_image_features(pixels, image["image_grid_thw"][None])

    def _normalised(self, image: Patches) -> torch.Tensor:
        pixels = image["pixel_values_videos" if "video_grid_thw" in image else "pixel_values"]
        if pixels.dtype != torch.uint8:
            return pixels.float()
        mean, std = self._statistics
        channels = pixels.view(len(pixels), 3, -1).float() / 255
        return ((channels - mean) / std).view(len(pixels), -1)

    @cached_property
    def _statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        processor = AutoImageProcessor.from_pretrained(self.path)
        return torch.tensor(processor.image_mean)[:, None], torch.tensor(processor.image_std)[:, None]


class Qwen3VL(Qwen2VL):
    """Between a video's pairs of frames a prompt tells the time in text."""

    def _runs(self, images: Sequence[Patches]) -> Iterator[tuple[torch.Tensor, float]]:
        for grid, _ in super()._runs(images):
            for _ in range(int(grid[0])):
                yield torch.tensor([1, *grid[1:].tolist()]), 1

    def features(self, image: Patches) -> list[torch.Tensor]:
        output = self._encode(image)
        return [output.pooler_output[0], *(layer[0] for layer in output.deepstack_features)]


class Qwen35(Qwen3VL):
    """No DeepStack; a mask for the layers with attention, none for the others."""

    def features(self, image: Patches) -> list[torch.Tensor]:
        return Qwen2VL.features(self, image)

    def masks(self, mask: torch.Tensor) -> dict[str, torch.Tensor | None]:
        return {"full_attention": mask, "linear_attention": None}


class Glm4v(Qwen3VL):
    """Between a video's pairs of frames a prompt tells the time; their tokens are those of an image."""

    def features(self, image: Patches) -> list[torch.Tensor]:
        output = self._encode(image)
        parts = output.pooler_output
        return [torch.cat(list(parts))]
