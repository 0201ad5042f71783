"""Images that are cut into tiles, each encoded by itself: leaving out those of which nothing is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Tiles:
    """How a model's images carry their tiles.

    tokens: visual tokens of each tile; those of one tile follow one another.
    pixels: per modality, the item's field with one row per tile.
    counts: per modality, the item's field that says how many tiles there are.
    """

    tokens: int
    pixels: Mapping[str, str]
    counts: Mapping[str, str]

    def check(self, modality: str, item: Mapping[str, Any], visual_tokens: int) -> None:
        """Refuse an item whose pixels are not those of its placeholder.

        Raises:
            ValueError: naming both numbers of visual tokens.
        """
        there = len(item[self.pixels[modality]].data) * self.tokens
        if there != visual_tokens:
            raise ValueError(
                f"an {modality} with pixels of {there} visual tokens: expected the {visual_tokens} of its "
                "placeholder; its features would be those of another one"
            )

    def only(self, modality: str, item: Mapping[str, Any], which: torch.Tensor) -> dict[str, torch.Tensor]:
        """An item's own fields, by name, as they are with some of its tiles alone.

        Args:
            which: ascending int64 numbers of the tiles that are left, possibly none.
        """
        pixels, count = self.pixels[modality], self.counts[modality]
        return {
            pixels: item[pixels].data[which],
            count: torch.full_like(item[count].data, len(which)),
        }

    def moved(self, kept: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """Indices of kept visual tokens among those of some tiles, which hold all of them."""
        return torch.searchsorted(which, kept // self.tokens) * self.tokens + kept % self.tokens
