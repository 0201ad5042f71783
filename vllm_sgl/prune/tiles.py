"""Keeps the most important visual tokens of few tiles: a tile without kept tokens is never encoded."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vllm_sgl.core import Kept, Seen
from vllm_sgl.prune.base import kept_count
from vllm_sgl.prune.top import per_item, ranked


def open_share(retention: float) -> float:
    """The share of visual tokens that open tiles, by default: a twentieth and a fifth of the retention.

    Chosen on sign questions (``docs/decisions/tile-policy.md``): the fewest tiles, at each retention, that
    answer as well as the plain ranking. What a question needs lies in the first few tokens, however many are
    kept, so the share falls more slowly than the retention.
    """
    return min(retention, 0.05 + retention / 5)


@dataclass(frozen=True)
class FewTiles:
    """The top tokens open the tiles that they are in; open tiles are then filled up, by importance.

    Where the vision encoder is a large part of the cost, the same cost buys more tokens in fewer tiles. An
    item that is encoded as a whole counts as one tile.

    opening: share of all visual tokens of a request that open tiles, in (0, 1]; None takes :func:`open_share`
        of the retention. From the retention on, this is :class:`vllm_sgl.prune.top.TopImportance`.
    """

    opening: float | None = None

    @classmethod
    def parse(cls, argument: str) -> "FewTiles":
        """Parse the argument of ``--sgl-policy tiles:0.13``.

        Raises:
            ValueError: for anything but a number in (0, 1].
        """
        try:
            share = float(argument)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            raise ValueError(
                "the policy 'tiles' takes the share of visual tokens that open tiles, a number in (0, 1], as "
                f"in 'tiles:0.13'; received {argument!r}"
            )
        return cls(share)

    def select(self, seen: Sequence[Seen], retention: float) -> Kept:
        """As :meth:`vllm_sgl.prune.base.Policy.select`; exactly ``kept_count`` indices where the open tiles
        have as many."""
        order = ranked(seen)
        most = kept_count(retention, len(order))
        share = open_share(retention) if self.opening is None else self.opening
        tile_of = _tiles(seen)
        is_open = torch.zeros(int(tile_of[-1]) + 1, dtype=torch.bool)
        is_open[tile_of[order[: min(most, kept_count(share, len(order)))]]] = True
        return per_item(order[is_open[tile_of[order]]][:most], seen)


def _tiles(seen: Sequence[Seen]) -> torch.Tensor:
    """The tile of each visual token, counted on from item to item: int64 [visual tokens], ascending."""
    parts, first = [], 0
    for one in seen:
        inside = torch.arange(one.item.visual_tokens) // one.item.per_tile
        parts.append(first + inside.clamp(max=one.item.tiles - 1))  # tokens behind the last tile belong to it
        first += one.item.tiles
    return torch.cat(parts)
