"""vLLM's rendered multi-modal input (``vllm.inputs.engine.MultiModalInput``): reading and building it."""

from typing import Any

import torch
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
    PlaceholderRange,
)

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = (
    "vllm.inputs.engine:MultiModalInput.type",
    "vllm.inputs.engine:MultiModalInput.prompt_token_ids",
    "vllm.inputs.engine:MultiModalInput.mm_kwargs",
    "vllm.inputs.engine:MultiModalInput.mm_hashes",
    "vllm.inputs.engine:MultiModalInput.mm_placeholders",
)

__all__ = ["MultiModalKwargsItems", "PlaceholderRange", "with_fields"]


def with_fields(item: Any, **tensors: torch.Tensor) -> MultiModalKwargsItem:
    """A copy of a rendered item with extra tensors for the model, which stay on the CPU.

    The item itself may live in vLLM's processor cache and is left as it is.
    """
    field = MultiModalBatchedField(keep_on_cpu=True)
    extra = {name: MultiModalFieldElem(data=data, field=field) for name, data in tensors.items()}
    return MultiModalKwargsItem({**item, **extra})
