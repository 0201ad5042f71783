"""Late tokens: visual tokens of known images that a later question needs and the large model was not given.

They are an item of their own, without markers, in front of that question: nothing before it changes, so that
the prefix cache serves all of it. They keep the positions that they have inside their image.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from vllm_sgl.core import Kept, Late, RenderedPrompt
from vllm_sgl.host.render.mm_input import MultiModalKwargsItems, PlaceholderRange, with_fields
from vllm_sgl.prune.rewrite import WHOLE, carried, item_key, prune_prompt, stays_of
from vllm_sgl.prune.threads import one_thread
from vllm_sgl.visual.fields import ITEM, LENGTH, OF, PLACES
from vllm_sgl.visual.items import embed_mask, placed_items
from vllm_sgl.visual.tiles import Tiles


@one_thread()
def given_prompt(
    prompt: RenderedPrompt, kept: Kept, late: Sequence[Late] = (), tiles: Mapping[str, Tiles] = WHOLE
) -> RenderedPrompt:
    """The prompt with only its kept visual tokens, and late ones where later turns put them.

    Args:
        prompt, kept, tiles: as :func:`vllm_sgl.prune.rewrite.prune_prompt` has them.
        late: in the order in which they were added.

    Raises:
        ValueError: as ``prune_prompt``.
    """
    pruned = prune_prompt(prompt, kept, tiles)
    if not late:
        return pruned
    items = placed_items(prompt)
    remains = torch.ones(len(prompt["prompt_token_ids"]) + 1, dtype=torch.bool)
    for item, indices in zip(items, kept, strict=True):
        start = item.place.offset
        remains[start : start + item.place.length] = stays_of(item.place, indices)
    ids = list(pruned["prompt_token_ids"])
    kwargs = {modality: list(of) for modality, of in pruned["mm_kwargs"].items()}
    hashes = {modality: list(of) for modality, of in pruned["mm_hashes"].items()}
    places = {modality: list(of) for modality, of in pruned["mm_placeholders"].items()}
    # From behind, so that what is in front stays where it is.
    for one in sorted(late, key=lambda late: late.at)[::-1]:
        item, count = items[one.number], len(one.indices)
        modality, where = item.modality, embed_mask(item.place).nonzero().flatten()
        at = int(remains[: one.at].sum())
        ids[at:at] = [prompt["prompt_token_ids"][item.place.offset + int(where[0])]] * count
        places = {name: [_behind(place, at, count) for place in of] for name, of in places.items()}
        name = prompt["mm_hashes"][modality][item.index]
        change = carried(prompt, item, tiles.get(modality), one.indices)
        fields = {
            **change.extra, ITEM: item_key(modality, name), PLACES: where[one.indices],
            LENGTH: torch.tensor(item.place.length), OF: torch.tensor(one.number),
        }  # fmt: skip
        kwargs[modality].append(with_fields(prompt["mm_kwargs"][modality][item.index], fields, change.own))
        hashes[modality].append(_late_hash(name, one))
        places[modality].append(PlaceholderRange(offset=at, length=count))
    return {
        **pruned, "prompt_token_ids": ids, "mm_kwargs": MultiModalKwargsItems(kwargs), "mm_hashes": hashes,
        "mm_placeholders": places,
    }  # fmt: skip


def _behind(place: PlaceholderRange, at: int, count: int) -> PlaceholderRange:
    return replace(place, offset=place.offset + count) if place.offset >= at else place


def _late_hash(mm_hash: str, late: Late) -> str:
    """Two equal images have one hash, and positions of their own."""
    digest = hashlib.sha256(f"late/{mm_hash}/{late.number}/{late.at}/".encode())
    digest.update(late.indices.numpy().tobytes())
    return digest.hexdigest()
