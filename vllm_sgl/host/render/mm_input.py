"""vLLM's rendered multi-modal input (``vllm.inputs.engine.MultiModalInput``): reading and building it."""

from collections.abc import Mapping
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


def with_fields(
    item: Any, extra: Mapping[str, torch.Tensor], changed: Mapping[str, torch.Tensor] | None = None
) -> MultiModalKwargsItem:
    """A copy of a rendered item with extra tensors for the model, which stay on the CPU.

    The item itself may live in vLLM's processor cache and is left as it is.

    Args:
        changed: other tensors for some of the item's own fields.
    """
    field = MultiModalBatchedField(keep_on_cpu=True)
    new = {name: MultiModalFieldElem(data=data, field=field) for name, data in extra.items()}
    other = {
        name: MultiModalFieldElem(data=data, field=item[name].field) for name, data in (changed or {}).items()
    }
    return MultiModalKwargsItem({**item, **other, **new})
