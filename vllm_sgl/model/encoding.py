"""Encodes the tiles of a batch that are not in the feature cache, a bounded number at a time."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vllm_sgl.model.feature_cache import FeatureCache, TileKey
from vllm_sgl.visual.fields import ITEM, KEPT, ROWS, TILES

#: Features [visual tokens, hidden] of some of a batch's tiles, by their numbers in the batch.
Encode = Callable[[Sequence[int]], Sequence[torch.Tensor]]


@dataclass(frozen=True)
class BatchItem:
    """An item of a batch.

    tiles: the present ones, in order; an item that is encoded as a whole is one tile.
    numbers: their numbers among the tiles of the whole batch.
    rows: visual tokens of each of them.
    kept: int64 [k], rows to keep, of the tiles and of the rest behind them; None for all.
    """

    tiles: Sequence[TileKey]
    numbers: Sequence[int]
    rows: int
    kept: torch.Tensor | None


def batch_items(fields: Mapping[str, Any], counts: Sequence[int], rest: int = 0) -> list[BatchItem]:
    """Read a batch.

    Args:
        fields: values of :mod:`vllm_sgl.visual.fields` as vLLM batches them, None for those that are missing.
        counts: how many tiles of each item are there.
        rest: visual tokens of each item behind its last tile.

    Raises:
        RuntimeError: where the numbers of tiles or their visual tokens do not add up.
    """
    items: list[BatchItem] = []
    first = 0
    for number, (name, count) in enumerate(zip(fields[ITEM], counts, strict=True)):
        tiles = range(count) if fields[TILES] is None else fields[TILES][number].tolist()
        total = int(fields[ROWS][number]) - rest
        if len(tiles) != count or (total % count if count else total):
            raise RuntimeError(
                f"expected pixels of {len(tiles)} tiles with {total} visual tokens, received {count} tiles"
            )
        key, rows = bytes(name.tolist()), total // max(1, count)
        items.append(
            BatchItem(
                tiles=[(key, tile, rows) for tile in tiles],
                numbers=range(first, first + count),
                rows=rows,
                kept=None if fields[KEPT] is None else fields[KEPT][number],
            )
        )
        first += count
    return items


def encoded(
    items: Sequence[BatchItem], encode: Encode, cache: FeatureCache, most_rows: int, rest: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Features of the present tiles of each item, [visual tokens, hidden], in order.

    Frees features as soon as no later item needs them.

    Args:
        most_rows: visual tokens of one call of ``encode``; a tile that has more is encoded alone.
        rest: [r, hidden], what every item has behind its last tile; possibly nothing.

    Raises:
        RuntimeError: where a tile has other visual tokens than expected.
    """
    uses = Counter(tile for item in items for tile in item.tiles)
    held = {tile: found for tile in uses if (found := cache.get(tile)) is not None}
    calls = _calls(items, set(held), most_rows)
    for item in items:
        while any(tile not in held for tile in item.tiles):
            new = next(calls)
            features = encode([number for _, number, _ in new])
            for (tile, _, rows), found in zip(new, features, strict=True):
                if len(found) != rows:
                    raise RuntimeError(
                        f"expected {rows} visual tokens of a tile, the vision encoder gave {len(found)}"
                    )
                held[tile] = found
                cache.put(tile, found)
        parts = [held[tile] for tile in item.tiles]
        if len(rest) or not parts:
            parts.append(rest)
        yield parts[0] if len(parts) == 1 else torch.cat(parts)
        uses.subtract(item.tiles)
        for tile in item.tiles:
            if not uses[tile]:
                held.pop(tile, None)


def _calls(
    items: Sequence[BatchItem], seen: set[TileKey], most_rows: int
) -> Iterator[list[tuple[TileKey, int, int]]]:
    """The tiles to encode, once each and none of those seen, as (tile, number in the batch, visual tokens),
    call by call."""
    call: list[tuple[TileKey, int, int]] = []
    total = 0
    for item in items:
        for tile, number in zip(item.tiles, item.numbers, strict=True):
            if tile in seen:
                continue
            seen.add(tile)
            if call and total + item.rows > most_rows:
                yield call
                call, total = [], 0
            call.append((tile, number, item.rows))
            total += item.rows
    if call:
        yield call
