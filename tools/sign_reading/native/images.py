"""Images as Qwen2-VL's encoder takes them, put together from a bank's tiles, with a label for every patch."""

from typing import NamedTuple

import numpy as np
import torch

from ..scene import TILE
from ..training.bank import SIDE, Bank
from ..training.vision import normalise

Grid = tuple[int, int]  # tiles across, down
_PER_TILE = SIDE * SIDE


class Labels(NamedTuple):
    """patches: int64 [patches, 2]; colour: int64 [tokens]; digits: int64 [tokens, 3]; as a bank has them."""

    patches: torch.Tensor
    colour: torch.Tensor
    digits: torch.Tensor


def patches(pictures: np.ndarray) -> torch.Tensor:
    """What the encoder reads of pictures uint8 [n, height, width, 3]: float32 [n * patches, 3 * 2 * 14 * 14].

    Patches come token by token, row by row; the four of a token row by row, too. Two equal frames each.
    """
    pixels = normalise(pictures)
    rows, columns = pixels.shape[2] // 28, pixels.shape[3] // 28
    split = pixels.view(-1, 3, rows, 2, 14, columns, 2, 14).permute(0, 2, 5, 3, 6, 1, 4, 7)
    flat = split.reshape(-1, 3, 1, 14 * 14)
    return flat.expand(-1, -1, 2, -1).reshape(len(flat), -1)


def token_order(grid: Grid) -> np.ndarray:
    """Where an image's visual tokens, row by row, are in its tiles: int64 [tokens], tile * 16 + token."""
    columns, rows = grid
    tiles = np.arange(columns * rows * _PER_TILE).reshape(rows, columns, SIDE, SIDE)
    return tiles.swapaxes(1, 2).ravel()


def patch_order(grid: Grid) -> np.ndarray:
    """Where an image's patches, token by token, are in its tiles: int64 [4 * tokens], tile * 64 + patch."""
    tile, token = np.divmod(token_order(grid), _PER_TILE)
    row, column = np.divmod(token, SIDE)
    corner = tile * 4 * _PER_TILE + 2 * row * 2 * SIDE + 2 * column
    return (corner[:, None] + np.array([0, 1, 2 * SIDE, 2 * SIDE + 1])).ravel()


class Composed(NamedTuple):
    """Images of one grid. pixels: as :func:`patches` gives them. sizes: int64 [n, 3], patches along time,
    height and width."""

    pixels: torch.Tensor
    sizes: torch.Tensor
    labels: Labels


def compose(bank: Bank, tiles: np.ndarray, grid: Grid, rng: np.random.Generator) -> Composed:
    """Images of the bank's tiles [n, columns * rows], each a little brighter or darker, paler or stronger."""
    count, (columns, rows) = len(tiles), grid
    parts = bank.pixels[tiles].reshape(count, rows, columns, TILE, TILE, 3)
    pictures = parts.transpose(0, 1, 3, 2, 4, 5).reshape(count, rows * TILE, columns * TILE, 3)
    pixels = patches(pictures).view(count, -1)
    contrast = torch.from_numpy(rng.uniform(0.8, 1.2, (count, 1)).astype(np.float32))
    brightness = torch.from_numpy(rng.uniform(-0.2, 0.2, (count, 1)).astype(np.float32))
    pixels = (pixels * contrast + brightness).view(-1, 3 * 2 * 14 * 14)

    def places(order: np.ndarray, per_tile: int) -> np.ndarray:
        return (tiles[:, order // per_tile] * per_tile + order % per_tile).ravel()

    tokens, of_patches = places(token_order(grid), _PER_TILE), places(patch_order(grid), 4 * _PER_TILE)
    labels = Labels(
        torch.from_numpy(bank.patches.reshape(-1, 2)[of_patches]),
        torch.from_numpy(bank.colour.reshape(-1)[tokens]),
        torch.from_numpy(bank.digits.reshape(-1, bank.digits.shape[-1])[tokens]),
    )
    return Composed(pixels, sizes(grid, count), labels)


def sizes(grid: Grid, count: int) -> torch.Tensor:
    """Of so many images: int64 [count, 3]."""
    return torch.tensor([[1, grid[1] * 2 * SIDE, grid[0] * 2 * SIDE]]).repeat(count, 1)


def tokens_of(grid: Grid) -> Grid:
    """The same grid in visual tokens."""
    return grid[0] * SIDE, grid[1] * SIDE
