"""vLLM's rendered multi-modal input (``vllm.inputs.engine.MultiModalInput``): reading and building it."""

from collections.abc import Iterable
from typing import Any

import torch
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
    PlaceholderRange,
)

__all__ = ["MultiModalKwargsItems", "PlaceholderRange", "embed_mask", "visual_positions", "with_fields"]


def embed_mask(place: PlaceholderRange) -> torch.Tensor:
    """Which of a placeholder's positions are visual tokens (others are markers); bool [length]."""
    if place.is_embed is None:
        return torch.ones(place.length, dtype=torch.bool)
    return place.is_embed


def visual_positions(placeholders: Iterable[PlaceholderRange]) -> torch.Tensor:
    """Prompt positions of all visual tokens, ascending; int64 [visual tokens]."""
    parts = [embed_mask(place).nonzero().flatten() + place.offset for place in placeholders]
    return torch.cat(parts).sort().values


def with_fields(item: Any, **tensors: torch.Tensor) -> MultiModalKwargsItem:
    """A copy of a rendered item with extra tensors for the model, which stay on the CPU.

    The item itself may live in vLLM's processor cache and is left as it is.
    """
    field = MultiModalBatchedField(keep_on_cpu=True)
    extra = {name: MultiModalFieldElem(data=data, field=field) for name, data in tensors.items()}
    return MultiModalKwargsItem({**item, **extra})
