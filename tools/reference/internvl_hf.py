"""InternVL in transformers' own format."""

import torch

from .reference import Reference


class InternVLHF(Reference):
    """An image is its tiles: float [tiles, 3, height, width], the thumbnail included; a video its frames."""

    markers = ("<img>", "</img>")
    least = 0
    video_token = "<video>"

    def features(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [self.model.model.get_image_features(image.float()).pooler_output.flatten(0, 1)]
