"""Made-up rendered prompts, as vLLM's renderer would hand them out."""

from typing import Any

import torch
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
    PlaceholderRange,
)

IMG, START, END = 9, 7, 8


def item(value: float, rows: int = 1) -> MultiModalKwargsItem:
    field = MultiModalBatchedField()
    data = torch.full((rows, 3), float(value))
    return MultiModalKwargsItem({"pixel_values_flat": MultiModalFieldElem(data=data, field=field)})


def make_prompt(*, other: int | None = None) -> dict[str, Any]:
    """text, an image of 5 in markers, text, an image of 3 without markers, text; maybe another modality.

    Images have a row of pixels for each of their visual tokens.
    """
    ids = [1, 2, START, *[IMG] * 5, END, 3, *[IMG] * 3, 4, 5]
    marked = torch.tensor([False, *[True] * 5, False])
    places = [
        PlaceholderRange(offset=2, length=7, is_embed=marked),
        PlaceholderRange(offset=10, length=3),
    ]
    prompt = {
        "type": "multimodal",
        "prompt_token_ids": ids,
        "prompt_token_offsets": list(range(len(ids))),
        "mm_kwargs": MultiModalKwargsItems({"image": [item(1, 5), item(2, 3)]}),
        "mm_hashes": {"image": ["hash-1", "hash-2"]},
        "mm_placeholders": {"image": places},
        "cache_salt": "salt",
    }
    if other is not None:
        prompt["mm_kwargs"] = MultiModalKwargsItems({"image": [item(1, 5), item(2, 3)], "audio": [item(3)]})
        prompt["mm_hashes"]["audio"] = ["hash-3"]
        prompt["mm_placeholders"]["audio"] = [PlaceholderRange(offset=other, length=2)]
    return prompt
