"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: patches of any number, M-RoPE, and DeepStack in the last."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from transformers import AutoImageProcessor

from .reference import Reference

Patches = Mapping[str, torch.Tensor]


class Qwen2VL(Reference):
    """An image is ``pixel_values`` [patches, channels * frames * side * side], normalised or, as uint8, not
    yet, and ``image_grid_thw`` [3]: patches along time, height and width."""

    def features(self, image: Patches) -> list[torch.Tensor]:
        output = self._encode(image)
        return [output.pooler_output[0]]

    def positions(self, token_ids: torch.Tensor, images: Sequence[Patches]) -> tuple[torch.Tensor, int]:
        if not images:
            return torch.arange(len(token_ids)).expand(3, -1), len(token_ids)
        places, delta = self.model.model.get_rope_index(
            token_ids[None],
            mm_token_type_ids=(token_ids == self.image_token_id).int()[None],
            image_grid_thw=torch.stack([image["image_grid_thw"] for image in images]),
        )
        return places[:, 0], len(token_ids) + int(delta)

    def _encode(self, image: Patches):
        return self.model.model.get_image_features(self._normalised(image), image["image_grid_thw"][None])

    def _normalised(self, image: Patches) -> torch.Tensor:
        pixels = image["pixel_values"]
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
    def features(self, image: Patches) -> list[torch.Tensor]:
        output = self._encode(image)
        return [output.pooler_output[0], *(layer[0] for layer in output.deepstack_features)]
