"""Items that are encoded tile by tile: leaves out the tiles without kept tokens.

An image's tiles are squares that it is cut into; a video's are its frames, or the runs of frames that a model
makes visual tokens of together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

#: What vLLM renders of an item: fields by name, each with its ``data``.
Item = Mapping[str, Any]
#: Tokens that the vision encoder produces from an item's pixels. None: same as the placeholder. 0: it does
#: not accept such pixels.
Encoded = Callable[[Item], int | None]


@dataclass(frozen=True)
class TileSize:
    """The size of each tile of an item. rows: of the pixels' field. down, across: visual tokens, row by
    row."""

    rows: int
    down: int
    across: int

    @property
    def tokens(self) -> int:
        """Visual tokens of a tile; those of one tile follow one another."""
        return self.down * self.across


def square_tiles(cells: int) -> Callable[[Item], TileSize]:
    """Tiles of as many visual tokens along each side, a row of pixels each."""
    size = TileSize(1, cells, cells)
    return lambda item: size


@dataclass(frozen=True)
class Tiles:
    """How a model's items of one modality carry their tiles.

    pixels: the field with equally many rows for each tile.
    size: of an item's tiles.
    counts: the field that says how many tiles are there, and nothing else; None where the model has none.
    rest: visual tokens behind those of the last tile that no pixels are needed for.
    """

    pixels: str
    size: Callable[[Item], TileSize]
    counts: str | None = None
    rest: int = 0

    def encoded(self, item: Item) -> int:
        """Visual tokens that the model's encoder makes of an item's pixels."""
        size = self.size(item)
        return len(item[self.pixels].data) // size.rows * size.tokens + self.rest

    def check(self, modality: str, item: Item, visual_tokens: int) -> None:
        """Refuse an item whose pixels are not those of its placeholder.

        Raises:
            ValueError: naming both numbers of visual tokens.
        """
        there = self.encoded(item)
        if there != visual_tokens:
            raise ValueError(
                f"an {modality} with pixels of {there} visual tokens: expected the {visual_tokens} of its "
                "placeholder; its features would be those of another one"
            )

    def only(self, item: Item, which: torch.Tensor) -> dict[str, torch.Tensor]:
        """An item's fields, by name, for some of its tiles alone.

        Args:
            which: ascending int64 numbers of the tiles that are left, possibly none.
        """
        apart = item[self.pixels].data.unflatten(0, (-1, self.size(item).rows))
        own = {self.pixels: apart[which].flatten(0, 1)}
        if self.counts is not None:
            own[self.counts] = torch.full_like(item[self.counts].data, len(which))
        return own


def encoded_as(tiles: Tiles, *shape: int) -> Encoded:
    """For an encoder that takes pixels whose last dimensions are ``shape``."""

    def encoded(item: Item) -> int:
        return tiles.encoded(item) if item[tiles.pixels].data.shape[-len(shape) :] == shape else 0

    return encoded


def moved(kept: torch.Tensor, tokens: int, which: torch.Tensor) -> torch.Tensor:
    """Indices of kept visual tokens among those of some tiles, which hold all of them, and of the rest."""
    return torch.searchsorted(which, kept // tokens) * tokens + kept % tokens
