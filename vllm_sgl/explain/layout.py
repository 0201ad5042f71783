"""Where visual tokens lie in the image that they come from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layout:
    """One image's visual tokens, in the order of InternVL: tiles row by row, the thumbnail last; inside each
    of them tokens row by row.

    columns, rows: the grid of tiles.
    cells: visual tokens along a tile's side.
    thumbnail: whether a thumbnail of the whole image follows the tiles.
    """

    columns: int
    rows: int
    cells: int
    thumbnail: bool

    @property
    def tiles(self) -> int:
        """Without the thumbnail."""
        return self.columns * self.rows

    @property
    def visual_tokens(self) -> int:
        return (self.tiles + self.thumbnail) * self.cells**2

    def tile_map(self, values: Sequence | np.ndarray) -> np.ndarray:
        """Values [visual tokens] as they lie in the tiled image: [rows * cells, columns * cells]."""
        in_tiles = np.asarray(values)[: self.tiles * self.cells**2]
        in_tiles = in_tiles.reshape(self.rows, self.columns, self.cells, self.cells)
        return in_tiles.swapaxes(1, 2).reshape(self.rows * self.cells, self.columns * self.cells)

    def thumbnail_map(self, values: Sequence | np.ndarray) -> np.ndarray | None:
        """Values [visual tokens] as they lie in the thumbnail: [cells, cells]; None without one."""
        if not self.thumbnail:
            return None
        return np.asarray(values)[-(self.cells**2) :].reshape(self.cells, self.cells)

    def boxes(self, width: int, height: int) -> np.ndarray:
        """What each visual token sees of an image of this size.

        Returns:
            float64 [visual tokens, 4]: x0, y0, x1, y1 in pixels.
        """
        numbers = np.arange(self.visual_tokens)
        boxes = np.empty((self.visual_tokens, 4))
        for token_map in (self.tile_map(numbers), self.thumbnail_map(numbers)):
            if token_map is not None:
                down, across = token_map.shape
                y, x = np.indices(token_map.shape)
                size = (width / across, height / down) * 2
                boxes[token_map] = np.stack([x, y, x + 1, y + 1], axis=-1) * size
        return boxes
