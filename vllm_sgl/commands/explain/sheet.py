"""A matplotlib figure measured in inches from its top left corner, and text that is folded to fit."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

INK, GREY, LINE = "#1b1f24", "#626c77", "#d5dae0"

_DPI = 200
#: The first of these that are installed; the last ones are asked for glyphs that the first one lacks.
_FAMILIES = (
    "Inter", "Source Sans 3", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans",
    "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "PingFang SC", "Microsoft YaHei",
)  # fmt: skip
_INSTALLED = [name for name in _FAMILIES if name in {font.name for font in font_manager.fontManager.ttflist}]


def font(size: float, weight: str = "normal") -> FontProperties:
    return FontProperties(family=_INSTALLED, size=size, weight=weight)


def text_width(text: str, style: FontProperties) -> float:
    """Inches."""
    return text_to_path.get_text_width_height_descent(text, style, ismath=False)[0] / 72


def line_height(style: FontProperties) -> float:
    """Inches."""
    return 1.3 * style.get_size_in_points() / 72


def fold(text: str, width: float, style: FontProperties, lines: int) -> list[str]:
    """Text in at most ``lines`` lines, none wider than ``width`` inches; what is left out is a "…".

    Words too wide for a line are broken.
    """
    folded = [""]
    for word in text.split():
        if len(folded) > lines:
            break
        if text_width(f"{folded[-1]} {word}".strip(), style) <= width:
            folded[-1] = f"{folded[-1]} {word}".strip()
            continue
        if folded[-1]:
            folded.append("")
        for letter in word:
            if folded[-1] and text_width(folded[-1] + letter, style) > width:
                folded.append("")
            folded[-1] += letter
    if len(folded) <= lines:
        return folded
    last = folded[lines - 1]
    while last and text_width(last + "…", style) > width:
        last = last[:-1]
    return [*folded[: lines - 1], last.rstrip() + "…"]


class Sheet:
    """A white figure to put things on.

    Args:
        width, height: inches.
    """

    def __init__(self, width: float, height: float) -> None:
        self._width, self._height = width, height
        self._figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Empty axes without frame or ticks; data coordinates are shares of it, y downwards."""
        share = (x / self._width, 1 - (y + height) / self._height, width / self._width, height / self._height)
        axes = self._figure.add_axes(share, xlim=(0, 1), ylim=(1, 0))
        axes.set_axis_off()
        return axes

    def image(self, x: float, y: float, width: float, height: float, pixels: np.ndarray) -> Axes:
        """Pixels [height, width, 3] that fill a box."""
        axes = self.axes(x, y, width, height)
        axes.imshow(pixels, extent=(0, 1, 1, 0), aspect="auto", interpolation="antialiased")
        return axes

    def text(
        self, x: float, y: float, lines: Sequence[str], style: FontProperties, colour: str = INK,
        align: str = "left",
    ) -> float:  # fmt: skip
        """Lines of text, the first of which begins at y; returns where the last one ends.

        align: the side of the text that x is: "left" or "right".
        """
        for line in lines:
            y += line_height(style)
            self._figure.text(
                x / self._width, 1 - (y - 0.3 * style.get_size_in_points() / 72) / self._height, line,
                fontproperties=style, color=colour, horizontalalignment=align,
                verticalalignment="baseline", parse_math=False,
            )  # fmt: skip
        return y

    def save(self, path: Path) -> None:
        # Text unhinted, so that it is as wide as it was measured; in SVG and PDF it stays text.
        with rc_context({"text.hinting": "none", "svg.fonttype": "none", "pdf.fonttype": 42}):
            self._figure.savefig(path)
