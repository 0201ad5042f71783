"""LLaVA-OneVision: a base image and anyres tiles, each row of the grid followed by a newline."""

from collections.abc import Mapping

import torch

from .reference import Reference


class LlavaOnevision(Reference):
    """An image is ``pixel_values`` [1 + tiles, 3, side, side], the base image first, and ``image_sizes`` [2]:
    its height and width. Every image is tiled, however many a prompt has. A video is ``pixel_values_videos``
    [frames, 3, side, side]."""

    def features(self, image: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        if "pixel_values_videos" in image:
            frames = image["pixel_values_videos"].float()
            return [self.model.model.get_video_features(frames[None]).pooler_output[0]]
        pixels, size = image["pixel_values"].float(), image["image_sizes"]
        return [self.model.model.get_image_features(pixels[None], size[None]).pooler_output[0]]
