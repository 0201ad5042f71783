"""InternVL in its original chat format, through transformers' own InternVL classes."""

import torch
from transformers import PreTrainedModel

from tools.internvl_reference import native_checkpoint

from .reference import Reference


class ChatInternVL(Reference):
    """An image is its tiles: float [tiles, 3, height, width], the thumbnail included; a video its frames."""

    least = 0
    video_token = "<|video_pad|>"

    def load(self) -> PreTrainedModel:
        token = self.tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
        return native_checkpoint.load(self.path, token)

    def features(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [self.model.model.get_image_features(image.float()).pooler_output.flatten(0, 1)]
