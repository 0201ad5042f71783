"""A scene with signs: where everything is, and how it is painted.

All sizes are pixels. A scene is as large as a grid of InternVL tiles, so that the image processor only
cuts it and never resizes it, and no sign lies across the border of two tiles or shares a visual token
with another sign.
"""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from . import texture

TILE = 112
"""Side of a tile: `force_image_size` of the models."""
CELL = 28
"""Side of what one visual token sees: 2 x 2 patches of 14 pixels."""

COLOURS = {
    "red": (196, 38, 42),
    "orange": (240, 138, 30),
    "yellow": (242, 220, 60),
    "green": (40, 140, 66),
    "blue": (38, 84, 190),
    "purple": (128, 52, 150),
    "white": (240, 240, 236),
    "black": (26, 26, 30),
}
DARK_TEXT = {"orange", "yellow", "white"}

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Sign:
    """A coloured plate with a code of one to three digits."""

    colour: str
    code: str
    box: Box
    """x0, y0, x1, y1 of the plate; x1 and y1 lie outside."""
    digits: tuple[tuple[float, float], ...]
    """Centre (x, y) of every digit."""
    font: str
    size: int


@dataclass(frozen=True)
class Scene:
    """An image before it is painted. The same scene gives the same pixels."""

    grid: tuple[int, int]
    """Tiles across and down."""
    signs: tuple[Sign, ...]
    background: str
    seed: int
    shapes: tuple[tuple[str, str, Box], ...] = field(default=())
    """Distractors: (kind, colour, box)."""

    @property
    def size(self) -> tuple[int, int]:
        return self.grid[0] * TILE, self.grid[1] * TILE


@dataclass(frozen=True)
class Style:
    """What scenes of one split may look like."""

    fonts: tuple[str, ...]
    backgrounds: tuple[str, ...]
    sizes: tuple[int, int]
    """Smallest and largest font size; a digit is about 0.73 of it high."""


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")
    return ImageFont.truetype(str(path), size)


def _cells(box: Box) -> set[tuple[int, int]]:
    x0, y0, x1, y1 = box
    columns = range(x0 // CELL, (x1 - 1) // CELL + 1)
    return {(x, y) for x in columns for y in range(y0 // CELL, (y1 - 1) // CELL + 1)}


def _place_sign(
    rng: np.random.Generator, style: Style, grid: tuple[int, int], colour: str, code: str
) -> Sign:
    font = str(rng.choice(style.fonts))
    size = int(rng.integers(style.sizes[0], style.sizes[1] + 1))
    advances = [_font(font, size).getlength(digit) + 1 for digit in code]
    pad_x, pad_y = (int(pad) for pad in rng.integers(4, 8, 2))
    width, height = round(sum(advances)) + 2 * pad_x, round(0.75 * size) + 2 * pad_y
    column, row = (int(rng.integers(count)) for count in grid)
    x0 = column * TILE + int(rng.integers(1, TILE - width))
    y0 = row * TILE + int(rng.integers(1, TILE - height))
    starts = x0 + pad_x + np.cumsum([0, *advances[:-1]])
    centres = [
        (float(start + advance / 2), y0 + height / 2) for start, advance in zip(starts, advances, strict=True)
    ]
    return Sign(colour, code, (x0, y0, x0 + width, y0 + height), tuple(centres), font, size)


def codes(rng: np.random.Generator, count: int) -> list[str]:
    """Distinct codes: one, two or three digits, the longer the more often."""
    found: dict[str, None] = {}
    while len(found) < count:
        length = rng.choice([1, 2, 3], p=[0.2, 0.35, 0.45])
        found["".join(str(digit) for digit in rng.integers(0, 10, length))] = None
    return list(found)


def layout(
    rng: np.random.Generator, style: Style, grid: tuple[int, int], colours: list[str], code_of: list[str]
) -> Scene:
    """Place one sign per colour, and a few coloured shapes without a code where there is room."""
    taken: set[tuple[int, int]] = set()
    signs = []
    for colour, code in zip(colours, code_of, strict=True):
        for _ in range(200):
            sign = _place_sign(rng, style, grid, colour, code)
            if taken.isdisjoint(_cells(sign.box)):
                taken |= _cells(sign.box)
                signs.append(sign)
                break
        else:
            raise ValueError(f"no room for {len(colours)} signs in {grid[0]} x {grid[1]} tiles")
    shapes = []
    for _ in range(int(rng.integers(1, 5))):
        width, height = (int(side) for side in rng.integers(12, 44, 2))
        x0, y0 = int(rng.integers(grid[0] * TILE - width)), int(rng.integers(grid[1] * TILE - height))
        box = (x0, y0, x0 + width, y0 + height)
        if taken.isdisjoint(_cells(box)):
            shapes.append((str(rng.choice(["ellipse", "triangle"])), str(rng.choice(list(COLOURS))), box))
    background = str(rng.choice(style.backgrounds))
    return Scene(grid, tuple(signs), background, int(rng.integers(2**31)), tuple(shapes))


def paint(scene: Scene) -> Image.Image:
    """The picture, RGB: background, shapes, signs, then light and noise over everything."""
    rng = np.random.default_rng(scene.seed)
    image = Image.fromarray(texture.background(rng, scene.background, scene.size))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 6))):
        ends = [int(v) for v in rng.integers(0, max(scene.size), 4)]
        draw.line(ends, fill=tuple(int(v) for v in rng.integers(60, 200, 3)), width=int(rng.integers(1, 3)))
    for kind, colour, (x0, y0, x1, y1) in scene.shapes:
        fill = _shade(rng, colour)
        if kind == "ellipse":
            draw.ellipse((x0, y0, x1 - 1, y1 - 1), fill=fill)
        else:
            draw.polygon(((x0, y1), ((x0 + x1) // 2, y0), (x1, y1)), fill=fill)
    for sign in scene.signs:
        fill = _shade(rng, sign.colour)
        text = (24, 24, 28) if sign.colour in DARK_TEXT else (244, 244, 240)
        draw.rectangle((sign.box[0], sign.box[1], sign.box[2] - 1, sign.box[3] - 1), fill=fill, outline=text)
        for digit, centre in zip(sign.code, sign.digits, strict=True):
            draw.text(centre, digit, fill=text, font=_font(sign.font, sign.size), anchor="mm")
    return Image.fromarray(texture.light_and_noise(rng, np.asarray(image)))


def _shade(rng: np.random.Generator, colour: str) -> tuple[int, ...]:
    return tuple(int(v) for v in np.clip(np.array(COLOURS[colour]) + rng.integers(-14, 15, 3), 0, 255))
