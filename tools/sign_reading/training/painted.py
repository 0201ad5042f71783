"""Painted scenes as a model gets them: normalised tiles and thumbnail, and the prompt around them."""

import numpy as np
import torch
from PIL import Image

from ..questions import ask
from ..scene import TILE, Scene, paint
from ..split import GRIDS, PAIR_GRID, PAIRS, example, scenes
from .bank import cut, labels
from .compose import QUESTIONS, TOKENS
from .prompts import Batch, Prompts
from .vision import normalise


def tiles(picture: Image.Image) -> torch.Tensor:
    """Tiles and thumbnail of a picture that is a grid of tiles already, float32 [tiles, 3, 112, 112]."""
    thumbnail = np.asarray(picture.resize((TILE, TILE), Image.Resampling.BICUBIC))
    return normalise(np.concatenate([cut(np.asarray(picture)), thumbnail[None]]))


class Painted:
    """Draws batches from a split; all rows of one batch have the same grid."""

    def __init__(self, split: str, prompts: Prompts) -> None:
        self.split, self.prompts = split, prompts

    def draw(self, rng: np.random.Generator, rows: int) -> tuple[torch.Tensor, Batch, np.ndarray]:
        """Tiles [all tiles of all rows, 3, 112, 112], the rows with four questions each, and which visual
        tokens show a sign that can be read, bool [rows, visual tokens]."""
        images = 2 if rng.random() < PAIRS else 1
        grid = PAIR_GRID if images == 2 else GRIDS[self.split][int(rng.integers(len(GRIDS[self.split])))]
        pixels, questions, signed = [], [], []
        for _ in range(rows):
            painted = scenes(rng, self.split, images, grid)
            signs = [sign for scene in painted for sign in scene.signs]
            pixels += [tiles(paint(scene)) for scene in painted]
            signed.append(np.concatenate([_signed(scene) for scene in painted]))
            questions.append([ask(rng, signs) for _ in range(QUESTIONS)])
        batch = self.prompts.batch([_tokens(grid)] * images, questions)
        return torch.cat(pixels), batch, np.stack(signed)

    def example(self, number: int) -> tuple[str, torch.Tensor, Batch]:
        """Kind of question, tiles and prompt of one example of the split."""
        made = example(self.split, number)
        pixels = torch.cat([tiles(paint(scene)) for scene in made.scenes])
        visual = [_tokens(scene.grid) for scene in made.scenes]
        return made.question.kind, pixels, self.prompts.batch(visual, [[made.question]])


def _tokens(grid: tuple[int, int]) -> int:
    return (grid[0] * grid[1] + 1) * TOKENS


def _signed(scene: Scene) -> np.ndarray:
    """Which visual tokens of tiles and thumbnail show a sign; of the thumbnail none does, legibly."""
    return np.concatenate([labels(scene)[0].ravel() > 0, np.zeros(TOKENS, dtype=bool)])
