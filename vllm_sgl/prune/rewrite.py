"""Rewriting a rendered prompt so that the model sees fewer visual tokens. Pure: inputs are never changed.

What the model needs travels on the image item itself (see :mod:`vllm_sgl.models.pruned`):

* ``sgl_image``: uint8 [16], names the image, so that its vision features are reused;
* ``sgl_kept``: int64 [k], ascending indices of the kept visual tokens among the image's own;
* ``sgl_places``: int64 [length], where each remaining position of the placeholder was inside it;
* ``sgl_length``: int64 scalar, how long the placeholder was.
"""

import hashlib
from collections.abc import Sequence
from itertools import compress
from typing import Any

import torch

from vllm_sgl.host.mm_input import (
    MultiModalKwargsItems,
    PlaceholderRange,
    embed_mask,
    with_fields,
)

IMAGE, KEPT, PLACES, LENGTH = "sgl_image", "sgl_kept", "sgl_places", "sgl_length"


def visual_counts(prompt: Any) -> tuple[int, ...]:
    """Visual tokens of each image of a rendered prompt, in prompt order."""
    return tuple(int(embed_mask(p).sum()) for p in prompt["mm_placeholders"]["image"])


def tag_images(prompt: Any) -> Any:
    """The same prompt, its images named, so that the model keeps and reuses their vision features."""
    return {**prompt, "mm_kwargs": _with_image_items(prompt, [{}] * len(prompt["mm_hashes"]["image"]))}


def prune_prompt(prompt: Any, kept: Sequence[torch.Tensor]) -> Any:
    """The prompt with only the kept visual tokens; everything else in place and in order.

    The items' hashes change with the mask, so neither vLLM's prefix cache nor its encoder cache can
    mix two masks of one image.

    Args:
        prompt: a rendered ``MultiModalInput`` with images and their pixels.
        kept: per image, ascending int64 indices of its kept visual tokens; may be empty.
    """
    places: Sequence[PlaceholderRange] = prompt["mm_placeholders"]["image"]
    counts = visual_counts(prompt)
    stays = torch.ones(len(prompt["prompt_token_ids"]), dtype=torch.bool)
    extra = []
    for place, count, indices in zip(places, counts, kept, strict=True):
        inside = _stays(place, count, indices)
        stays[place.offset : place.offset + place.length] = inside
        extra.append(
            {
                KEPT: indices,
                PLACES: inside.nonzero().flatten(),
                LENGTH: torch.tensor(place.length),
            }
        )
    removed_before = (~stays).cumsum(0) - (~stays).long()
    hashes = [
        _pruned_hash(name, count, indices)
        for name, count, indices in zip(prompt["mm_hashes"]["image"], counts, kept, strict=True)
    ]
    rewritten = {
        **prompt,
        "prompt_token_ids": list(compress(prompt["prompt_token_ids"], stays.tolist())),
        "mm_kwargs": _with_image_items(prompt, extra),
        "mm_hashes": {**prompt["mm_hashes"], "image": hashes},
        "mm_placeholders": {
            modality: [_moved(place, stays, removed_before) for place in ranges]
            for modality, ranges in prompt["mm_placeholders"].items()
        },
    }
    rewritten.pop("prompt_token_offsets", None)  # character offsets of the unpruned prompt
    return rewritten


def _stays(place: PlaceholderRange, count: int, indices: torch.Tensor) -> torch.Tensor:
    """Which of a placeholder's positions remain: its markers and its kept visual tokens."""
    is_visual = embed_mask(place)
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[indices] = True
    stays = ~is_visual
    stays[is_visual] = chosen
    return stays


def _moved(place: PlaceholderRange, stays: torch.Tensor, removed_before: torch.Tensor) -> PlaceholderRange:
    mask = stays[place.offset : place.offset + place.length]
    return PlaceholderRange(
        offset=place.offset - int(removed_before[place.offset]),
        length=int(mask.sum()),
        is_embed=None if place.is_embed is None else place.is_embed[mask],
    )


def _with_image_items(prompt: Any, extra: Sequence[dict[str, torch.Tensor]]) -> MultiModalKwargsItems:
    items = [
        with_fields(item, **{IMAGE: _image_key(name)}, **fields)
        for item, name, fields in zip(
            prompt["mm_kwargs"]["image"], prompt["mm_hashes"]["image"], extra, strict=True
        )
    ]
    return MultiModalKwargsItems({**prompt["mm_kwargs"], "image": items})


def _image_key(mm_hash: str) -> torch.Tensor:
    return torch.tensor(list(hashlib.sha256(mm_hash.encode()).digest()[:16]), dtype=torch.uint8)


def _pruned_hash(mm_hash: str, count: int, indices: torch.Tensor) -> str:
    digest = hashlib.sha256(f"{mm_hash}/{count}/".encode())
    digest.update(indices.numpy().tobytes())
    return digest.hexdigest()
