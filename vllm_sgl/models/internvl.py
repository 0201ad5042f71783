"""InternVL's chat model, pruned."""

from collections.abc import Sequence
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.model_executor.models.internvl import (
    InternVLChatModel,
    InternVLDummyInputsBuilder,
    InternVLMultiModalProcessor,
    InternVLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_sgl.models.pruned import PrunedImages


@MULTIMODAL_REGISTRY.register_processor(
    InternVLMultiModalProcessor,
    info=InternVLProcessingInfo,
    dummy_inputs=InternVLDummyInputsBuilder,
)
class SGLInternVLChatModel(PrunedImages, InternVLChatModel):
    """``InternVLChatModel`` that keeps only chosen visual tokens, at their original positions."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.init_pruning(vllm_config)

    def embed_multimodal(self, **kwargs: object) -> Sequence[torch.Tensor]:
        return self.embed_images(**kwargs)

    def encode_images(self, **kwargs: object) -> Sequence[torch.Tensor]:
        return InternVLChatModel.embed_multimodal(self, **kwargs)

    def pick_images(self, which: Sequence[int], **kwargs: Any) -> dict[str, object]:
        counts = kwargs.pop("image_num_patches").flatten()
        tiles = kwargs.pop("pixel_values_flat").split(counts.tolist())
        return {
            **kwargs,
            "pixel_values_flat": torch.cat([tiles[index] for index in which]),
            "image_num_patches": counts[list(which)],
        }

    def forward(
        self, input_ids: torch.Tensor | None, positions: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        # With original positions the runner carries three equal rows; the rotary embedding is 1-D.
        return super().forward(
            input_ids, positions[0] if positions.dim() == 2 else positions, *args, **kwargs
        )
