"""Layouts: where visual tokens lie in their image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Indices of visual tokens as they lie in an image: int64 [down, across].
TokenMap = npt.NDArray[np.int64]
#: Where each row or column of tokens begins and ends, in shares of the image's side: float64 [n, 2].
Spans = npt.NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """One complete view of an image, such as a grid of tiles or a thumbnail.

    tokens: which token lies where.
    across, down: the spans of the map's columns and rows; None where they divide the image evenly. Spans may
        reach over the image's border (padding), and leave a gap between them (pixels that no token sees).
    """

    tokens: TokenMap
    across: Spans | None = None
    down: Spans | None = None

    @property
    def spans(self) -> tuple[Spans, Spans]:
        """The spans of the map's rows and of its columns."""
        rows, columns = self.tokens.shape
        return (
            even(rows) if self.down is None else self.down,
            even(columns) if self.across is None else self.across,
        )

    def boxes(self) -> npt.NDArray[np.float64]:
        """float64 [down, across, 4]: x0, y0, x1, y1 in shares of the image, cut off at its border."""
        y, x = self.spans
        boxes = np.empty((*self.tokens.shape, 4))
        boxes[..., 0::2], boxes[..., 1::2] = x[None], y[:, None]
        return boxes.clip(0, 1)


@dataclass(frozen=True)
class Layout:
    """One image's visual tokens.

    visual_tokens: how many there are.
    views: complete views of the image, the finest first. A token outside all views (a separator) sees
        nothing of the image.
    columns, rows: the grid of tiles that the image was cut into, 1 x 1 where it was not.
    tile_tokens: visual tokens of a tile, where tiles are encoded one by one; None where the image is encoded
        as a whole.
    """

    visual_tokens: int
    views: tuple[View, ...]
    columns: int = 1
    rows: int = 1
    tile_tokens: int | None = None

    def maps(self, values: Sequence[float] | npt.NDArray[np.generic]) -> list[npt.NDArray[np.generic]]:
        """Values [visual tokens] as they lie in each view: [down, across]."""
        return [np.asarray(values)[view.tokens] for view in self.views]

    def boxes(self, width: int, height: int) -> npt.NDArray[np.float64]:
        """What each visual token sees of an image of this size.

        Returns:
            float64 [visual tokens, 4]: x0, y0, x1, y1 in pixels; an empty box where it sees nothing.
        """
        boxes = np.zeros((self.visual_tokens, 4))
        for view in self.views:
            boxes[view.tokens] = view.boxes() * (width, height, width, height)
        return boxes


#: The layout of an image of this width and height, in pixels.
LayoutOf = Callable[[int, int], Layout]


def even(count: int) -> Spans:
    """A side divided evenly."""
    edges = np.arange(count + 1) / count
    return np.stack([edges[:-1], edges[1:]], axis=-1)


def grid(columns: int, rows: int) -> Layout:
    """Tokens row by row over an image that is encoded as a whole."""
    return Layout(columns * rows, (View(np.arange(columns * rows).reshape(rows, columns)),))


def tiled(columns: int, rows: int, cells: int, thumbnail: bool) -> Layout:
    """Tiles row by row, then a thumbnail of the whole image; inside each of them tokens row by row.

    Args:
        cells: visual tokens along a tile's side.
        thumbnail: whether a thumbnail follows the tiles.
    """
    count = (columns * rows + thumbnail) * cells**2
    in_tiles = np.arange(columns * rows * cells**2).reshape(rows, columns, cells, cells)
    views = [View(in_tiles.swapaxes(1, 2).reshape(rows * cells, columns * cells))]
    if thumbnail:
        views.append(View(np.arange(count - cells**2, count).reshape(cells, cells)))
    return Layout(count, tuple(views), columns, rows, cells**2)
