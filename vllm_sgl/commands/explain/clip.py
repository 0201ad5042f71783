"""A video as it is explained: its frames side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vllm_sgl.visual.layout import Layout, View

if TYPE_CHECKING:
    from vllm_sgl.core import VisualItem

#: Frames of a row of the strip, and the height of a frame, in pixels.
_ACROSS, _HEIGHT = 8, 240


@dataclass(frozen=True)
class SeenVideo:
    """Visual tokens of one moment follow those of another; a moment is a frame, or what a model sees as one.

    frames: RGB images of one size, one per moment.
    item: its tiles are the moments. across, down: visual tokens of each of them.
    importance: float32 [visual tokens].
    """

    path: str
    frames: Sequence[Image.Image]
    item: "VisualItem"
    across: int
    down: int
    importance: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a frame, pixels."""
        return self.frames[0].size

    @cached_property
    def layout(self) -> Layout:
        """Where the tokens lie in the strip; there are none (-1) behind the last frame."""
        columns, rows = self._strip
        tokens = np.full((rows * columns, self.down, self.across), -1)
        tokens[: len(self.frames)] = np.arange(len(self.frames) * self.down * self.across).reshape(
            -1, self.down, self.across
        )
        strip = tokens.reshape(rows, columns, self.down, self.across).swapaxes(1, 2)
        view = View(strip.reshape(rows * self.down, columns * self.across))
        return Layout(self.item.visual_tokens, (view,), columns, rows, self.item.tile_tokens)

    @cached_property
    def pixels(self) -> Image.Image:
        """The strip, white behind the last frame."""
        columns, rows = self._strip
        width, height = max(1, round(self.size[0] * _HEIGHT / self.size[1])), _HEIGHT
        strip = Image.new("RGB", (columns * width, rows * height), "white")
        for number, frame in enumerate(self.frames):
            down, across = divmod(number, columns)
            strip.paste(frame.resize((width, height)), (across * width, down * height))
        return strip

    def boxes(self) -> list[list[float]]:
        """What each visual token sees of its moment's frame: [x0, y0, x1, y1] in pixels; what is behind the
        last moment sees nothing."""
        view = View(np.arange(self.down * self.across).reshape(self.down, self.across))
        width, height = self.size
        boxes = (view.boxes() * (width, height, width, height)).reshape(-1, 4)
        return [*np.tile(boxes, (len(self.frames), 1)).tolist(), *[[0.0] * 4] * self.item.rest]

    @property
    def _strip(self) -> tuple[int, int]:
        """Frames across and down."""
        rows = math.ceil(len(self.frames) / _ACROSS)
        return math.ceil(len(self.frames) / rows), rows


def moments(frames: np.ndarray, count: int) -> list[Image.Image]:
    """As many frames, evenly spread, of uint8 [frames, height, width, 3]: the one in the middle of each of
    equal runs, which is what a model sees as one, where it samples evenly."""
    return [Image.fromarray(frames[int((number + 0.5) * len(frames) / count)]) for number in range(count)]
