"""Rewriting a rendered prompt so that the model sees fewer visual tokens. Pure: inputs are never changed.

What the model needs travels on the image or video itself, in the fields of :mod:`vllm_sgl.visual.fields`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress

import torch

from vllm_sgl.core import Kept, RenderedPrompt, open_tiles
from vllm_sgl.host.render.mm_input import MultiModalKwargsItems, PlaceholderRange, with_fields
from vllm_sgl.prune.threads import one_thread
from vllm_sgl.visual.fields import ITEM, KEPT, LENGTH, PLACES, ROWS, TILES
from vllm_sgl.visual.items import Placed, by_modality, embed_mask, placed_items
from vllm_sgl.visual.tiles import Tiles, moved

#: Every item is encoded as a whole.
WHOLE: Mapping[str, Tiles] = {}


@dataclass(frozen=True)
class _Change:
    """extra: fields for the model. own: other tensors for the item's own fields."""

    extra: Mapping[str, torch.Tensor]
    own: Mapping[str, torch.Tensor] = field(default_factory=dict)


def tag_items(prompt: RenderedPrompt, tiles: Mapping[str, Tiles] = WHOLE) -> RenderedPrompt:
    """A copy of the prompt whose images and videos have names, by which the model keeps and reuses their
    vision features."""
    items = placed_items(prompt)
    everything = [carried(prompt, item, tiles.get(item.modality), None) for item in items]
    return {**prompt, "mm_kwargs": _changed(prompt, items, everything)}


@one_thread()
def prune_prompt(prompt: RenderedPrompt, kept: Kept, tiles: Mapping[str, Tiles] = WHOLE) -> RenderedPrompt:
    """The prompt with only the kept visual tokens; everything else in place and in order.

    The items' hashes change with the mask, so neither vLLM's prefix cache nor its encoder cache can
    mix two masks of one image. Tiles of which nothing is kept leave their pixels behind.

    Args:
        prompt: a rendered ``MultiModalInput`` with images or videos and their pixels.
        kept: per item, in prompt order, ascending int64 indices of its kept visual tokens; may be empty where
            the placeholder has other positions too.
        tiles: per modality, how its items carry their tiles; without those that are encoded as a whole.

    Raises:
        ValueError: for indices that are no item's visual tokens, pixels that do not fit the placeholder, or
            where nothing would be left of a placeholder, which would end the engine.
    """
    items = placed_items(prompt)
    stays = torch.ones(len(prompt["prompt_token_ids"]), dtype=torch.bool)
    changes = []
    for item, indices in zip(items, kept, strict=True):
        change, place = carried(prompt, item, tiles.get(item.modality), indices), item.place
        inside = stays_of(place, indices)
        if not inside.any():
            raise ValueError(
                f"the {item.modality} at token {place.offset} keeps none of its {place.length} tokens, and "
                "an engine takes no empty placeholder: keep at least one (vllm_sgl.prune.minimum)"
            )
        stays[place.offset : place.offset + place.length] = inside
        places = {PLACES: inside.nonzero().flatten(), LENGTH: torch.tensor(place.length)}
        changes.append(replace(change, extra={**change.extra, **places}))
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
        "mm_kwargs": _changed(prompt, items, changes),
        "mm_hashes": {**prompt["mm_hashes"], **hashes},
        "mm_placeholders": {
            modality: [_moved(place, stays, removed_before) for place in ranges]
            for modality, ranges in prompt["mm_placeholders"].items()
        },
    }
    rewritten.pop("prompt_token_offsets", None)  # character offsets of the unpruned prompt
    return rewritten


def carried(prompt: RenderedPrompt, item: Placed, tiles: Tiles | None, kept: torch.Tensor | None) -> _Change:
    """The part of an item that the model needs for its kept visual tokens; all of it for None."""
    count = item.visual_tokens
    if kept is not None and len(kept) and not 0 <= int(kept.min()) <= int(kept.max()) < count:
        raise ValueError(
            f"expected kept indices below {count}, the {item.modality}'s visual tokens; received "
            f"{int(kept.min())} to {int(kept.max())}"
        )
    if tiles is None:
        return _Change({ROWS: torch.tensor(count), **({} if kept is None else {KEPT: kept})})
    own = prompt["mm_kwargs"][item.modality][item.index]
    tiles.check(item.modality, own, count)
    each = tiles.size(own).tokens
    every = torch.arange((count - tiles.rest) // each)
    if kept is None:
        return _Change({ROWS: torch.tensor(count), TILES: every})
    which = open_tiles(kept, each, len(every))
    rows = torch.tensor(len(which) * each + tiles.rest)
    return _Change(
        {ROWS: rows, TILES: which, KEPT: moved(kept, each, which)},
        {} if len(which) == len(every) else tiles.only(own, which),
    )


def stays_of(place: PlaceholderRange, indices: torch.Tensor) -> torch.Tensor:
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


def _changed(
    prompt: RenderedPrompt, items: Sequence[Placed], changes: Sequence[_Change]
) -> MultiModalKwargsItems:
    """Each item with its tensors, its name and its changes."""
    after = dict(prompt["mm_kwargs"])
    for modality, numbers in by_modality(items):
        named = zip(
            prompt["mm_kwargs"][modality], prompt["mm_hashes"][modality],
            (changes[number] for number in numbers), strict=True,
        )  # fmt: skip
        after[modality] = [
            with_fields(item, {ITEM: item_key(modality, mm_hash), **change.extra}, change.own)
            for item, mm_hash, change in named
        ]
    return MultiModalKwargsItems(after)


def item_key(modality: str, mm_hash: str) -> torch.Tensor:
    """The key of an item. It has the modality, because a client may give an image and a video the same
    name."""
    name = f"{modality}/{mm_hash}".encode()
    return torch.tensor(list(hashlib.sha256(name).digest()[:16]), dtype=torch.uint8)


def _pruned_hash(mm_hash: str, count: int, indices: torch.Tensor) -> str:
    """The item's own hash where all of it is kept: caches know it from unpruned prompts."""
    if len(indices) == count:
        return mm_hash
    digest = hashlib.sha256(f"{mm_hash}/{count}/".encode())
    digest.update(indices.numpy().tobytes())
    return digest.hexdigest()
