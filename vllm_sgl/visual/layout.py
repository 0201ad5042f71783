"""Where visual tokens lie in the image that they come from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Indices of visual tokens as they lie in an evenly divided image: int64 [down, across].
TokenMap = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """One image's visual tokens.

    visual_tokens: how many there are.
    views: one token map per time that the image is shown whole. Every view covers the whole image evenly; a
        token that is in none (a separator) sees nothing of it.
    columns, rows: the grid of tiles that the image was cut into, 1 x 1 where it was not.
    tile_tokens: visual tokens of a tile, where tiles are encoded one by one; None where the image is encoded
        as a whole.
    """

    visual_tokens: int
    views: tuple[TokenMap, ...]
    columns: int = 1
    rows: int = 1
    tile_tokens: int | None = None

    def maps(self, values: Sequence[float] | npt.NDArray[np.generic]) -> list[npt.NDArray[np.generic]]:
        """Values [visual tokens] as they lie in each view: [down, across]."""
        return [np.asarray(values)[view] for view in self.views]

    def boxes(self, width: int, height: int) -> npt.NDArray[np.float64]:
        """What each visual token sees of an image of this size.

        Returns:
            float64 [visual tokens, 4]: x0, y0, x1, y1 in pixels; an empty box where it sees nothing.
        """
        boxes = np.zeros((self.visual_tokens, 4))
        for view in self.views:
            down, across = view.shape
            y, x = np.indices(view.shape)
            size = (width / across, height / down) * 2
            boxes[view] = np.stack([x, y, x + 1, y + 1], axis=-1) * size
        return boxes


#: The layout of an image of this width and height, in pixels.
LayoutOf = Callable[[int, int], Layout]


def tiled(columns: int, rows: int, cells: int, thumbnail: bool) -> Layout:
    """Tiles row by row, then a thumbnail of the whole image; inside each of them tokens row by row.

    Args:
        cells: visual tokens along a tile's side.
        thumbnail: whether a thumbnail follows the tiles.
    """
    count = (columns * rows + thumbnail) * cells**2
    in_tiles = np.arange(columns * rows * cells**2).reshape(rows, columns, cells, cells)
    views = [in_tiles.swapaxes(1, 2).reshape(rows * cells, columns * cells)]
    if thumbnail:
        views.append(np.arange(count - cells**2, count).reshape(cells, cells))
    return Layout(count, tuple(views), columns, rows, cells**2)
