"""A bank of painted tiles with a label for every visual token: what the first two stages train on.

Tiles come from crowded pages (about one sign per tile), so that most of what is computed is worth learning.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ..scene import CELL, COLOURS, TILE, Scene, codes, layout, paint
from ..split import STYLES

SIDE = TILE // CELL
PATCH = CELL // 2
COLOUR_NAMES = list(COLOURS)
_PAGE = (4, 3)
_SIGNS_PER_PAGE = 12
SLOTS = 3
"""Digits of the longest code."""


class Plate(NamedTuple):
    """A sign of the bank: what is on it and which visual tokens of which tile see it."""

    colour: str
    code: str
    tile: int
    tokens: tuple[int, ...]


@dataclass
class Bank:
    """Arrays over `n` tiles of 16 visual tokens."""

    pixels: np.ndarray  # uint8 [n, 112, 112, 3]
    colour: np.ndarray  # int64 [n, 16]; 0 is no sign, else 1 + index of COLOURS
    digits: np.ndarray  # int64 [n, 16, 3]; per place in the code 0 is no digit here, else 1 + digit
    patches: np.ndarray  # int64 [n, 64, 2]; per ViT patch 1 + digit centred in it and 1 + its place, or 0, 0
    plates: list[Plate]

    def __len__(self) -> int:
        return len(self.pixels)


def labels(scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Plate]]:
    """The fields `colour`, `digits`, `patches` and `plates` of a bank of this scene's tiles."""
    across, down = scene.grid
    colour = np.zeros((across * down, SIDE * SIDE), dtype=np.int64)
    digits = np.zeros((across * down, SIDE * SIDE, SLOTS), dtype=np.int64)
    patches = np.zeros((across * down, 4 * SIDE * SIDE, 2), dtype=np.int64)
    plates = []
    for sign in scene.signs:
        x0, y0, x1, y1 = sign.box
        tile = y0 // TILE * across + x0 // TILE
        seen = set()
        for x, y in (
            (x, y) for x in range(x0 // CELL, x1 // CELL + 1) for y in range(y0 // CELL, y1 // CELL + 1)
        ):
            width, height = (
                min(x1, (x + 1) * CELL) - max(x0, x * CELL),
                min(y1, (y + 1) * CELL) - max(y0, y * CELL),
            )
            if min(width, height) > 0 and width * height >= 0.1 * CELL**2:
                seen.add(y % SIDE * SIDE + x % SIDE)
        for place, ((x, y), digit) in enumerate(zip(sign.digits, sign.code, strict=True)):
            token = int(y) // CELL % SIDE * SIDE + int(x) // CELL % SIDE
            digits[tile, token, place] = 1 + int(digit)
            patch = int(y) // PATCH % (2 * SIDE) * 2 * SIDE + int(x) // PATCH % (2 * SIDE)
            patches[tile, patch] = 1 + int(digit), 1 + place
            seen.add(token)
        colour[tile, sorted(seen)] = 1 + COLOUR_NAMES.index(sign.colour)
        plates.append(Plate(sign.colour, sign.code, tile, tuple(sorted(seen))))
    return colour, digits, patches, plates


def cut(picture: np.ndarray) -> np.ndarray:
    """Tiles [n, 112, 112, 3] of a picture [height, width, 3], row by row."""
    height, width, _ = picture.shape
    split = picture.reshape(height // TILE, TILE, width // TILE, TILE, 3)
    return split.swapaxes(1, 2).reshape(-1, TILE, TILE, 3)


def make(pages: range, directory: Path) -> Bank:
    """Paint a bank of the pages with these numbers, or read it from `directory` if it is there."""
    file = directory / f"bank-{pages.start}-{pages.stop}.npz"
    if not file.exists():
        _paint(pages, file)
    with np.load(file) as stored:
        pixels = stored["pixels"]
    found = [labels(_page(number)) for number in pages]
    colour, digits, patches = (np.concatenate(part) for part in list(zip(*found, strict=True))[:3])
    per_page = _PAGE[0] * _PAGE[1]
    plates = [
        plate._replace(tile=plate.tile + index * per_page)
        for index, (*_, of_page) in enumerate(found)
        for plate in of_page
    ]
    return Bank(pixels, colour, digits, patches, plates)


def _page(number: int) -> Scene:
    rng = np.random.default_rng([3, number])
    colours = [str(colour) for colour in rng.choice(COLOUR_NAMES, _SIGNS_PER_PAGE)]
    return layout(rng, STYLES["train"], _PAGE, colours, codes(rng, _SIGNS_PER_PAGE))


def _paint(pages: range, file: Path) -> None:
    numbers = tqdm(pages, desc="painting tiles", unit="page", mininterval=5)
    pixels = np.concatenate([cut(np.asarray(paint(_page(number)))) for number in numbers])
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, pixels=pixels)
    partial.rename(file)
