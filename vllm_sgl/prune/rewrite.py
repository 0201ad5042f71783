"""Rewriting a rendered prompt so that the model sees fewer visual tokens. Pure: inputs are never changed.

What the model needs travels on the image or video itself, in the fields of :mod:`vllm_sgl.visual.fields`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import compress

import torch

from vllm_sgl.core import Kept, RenderedPrompt
from vllm_sgl.host.mm_input import MultiModalKwargsItems, PlaceholderRange, with_fields
from vllm_sgl.visual.fields import ITEM, KEPT, LENGTH, PLACES
from vllm_sgl.visual.items import Placed, by_modality, embed_mask, placed_items


def tag_items(prompt: RenderedPrompt) -> RenderedPrompt:
    """The same prompt, its images and videos named, so that the model keeps and reuses their vision
    features."""
    items = placed_items(prompt)
    return {**prompt, "mm_kwargs": _with_fields(prompt, items, [{}] * len(items))}


def prune_prompt(prompt: RenderedPrompt, kept: Kept) -> RenderedPrompt:
    """The prompt with only the kept visual tokens; everything else in place and in order.

    The items' hashes change with the mask, so neither vLLM's prefix cache nor its encoder cache can
    mix two masks of one image.

    Args:
        prompt: a rendered ``MultiModalInput`` with images or videos and their pixels.
        kept: per item, in prompt order, ascending int64 indices of its kept visual tokens; may be empty where
            the placeholder has other positions too.

    Raises:
        ValueError: where nothing would be left of a placeholder; it would end the engine.
    """
    items = placed_items(prompt)
    stays = torch.ones(len(prompt["prompt_token_ids"]), dtype=torch.bool)
    extra = []
    for item, indices in zip(items, kept, strict=True):
        place = item.place
        inside = _stays(place, indices)
        if not inside.any():
            raise ValueError(
                f"the {item.modality} at token {place.offset} keeps none of its {place.length} tokens, and "
                "an engine takes no empty placeholder: keep at least one (vllm_sgl.prune.least)"
            )
        stays[place.offset : place.offset + place.length] = inside
        extra.append(
            {
                KEPT: indices,
                PLACES: inside.nonzero().flatten(),
                LENGTH: torch.tensor(place.length),
            }
        )
    removed_before = (~stays).cumsum(0) - (~stays).long()
    hashes = {
        modality: [
            _pruned_hash(prompt["mm_hashes"][modality][index], items[number].visual_tokens, kept[number])
            for index, number in enumerate(numbers)
        ]
        for modality, numbers in by_modality(items)
    }
    rewritten = {
        **prompt,
        "prompt_token_ids": list(compress(prompt["prompt_token_ids"], stays.tolist())),
        "mm_kwargs": _with_fields(prompt, items, extra),
        "mm_hashes": {**prompt["mm_hashes"], **hashes},
        "mm_placeholders": {
            modality: [_moved(place, stays, removed_before) for place in ranges]
            for modality, ranges in prompt["mm_placeholders"].items()
        },
    }
    rewritten.pop("prompt_token_offsets", None)  # character offsets of the unpruned prompt
    return rewritten


def _stays(place: PlaceholderRange, indices: torch.Tensor) -> torch.Tensor:
    """Which of a placeholder's positions remain: its markers and its kept visual tokens."""
    is_visual = embed_mask(place)
    chosen = torch.zeros(int(is_visual.sum()), dtype=torch.bool)
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


def _with_fields(
    prompt: RenderedPrompt, items: Sequence[Placed], extra: Sequence[Mapping[str, torch.Tensor]]
) -> MultiModalKwargsItems:
    """Every item's own tensors, its name and the extra ones."""
    changed = dict(prompt["mm_kwargs"])
    for modality, numbers in by_modality(items):
        named = zip(prompt["mm_kwargs"][modality], prompt["mm_hashes"][modality], numbers, strict=True)
        changed[modality] = [
            with_fields(item, **{ITEM: _item_key(mm_hash)}, **extra[number])
            for item, mm_hash, number in named
        ]
    return MultiModalKwargsItems(changed)


def _item_key(mm_hash: str) -> torch.Tensor:
    return torch.tensor(list(hashlib.sha256(mm_hash.encode()).digest()[:16]), dtype=torch.uint8)


def _pruned_hash(mm_hash: str, count: int, indices: torch.Tensor) -> str:
    digest = hashlib.sha256(f"{mm_hash}/{count}/".encode())
    digest.update(indices.numpy().tobytes())
    return digest.hexdigest()
