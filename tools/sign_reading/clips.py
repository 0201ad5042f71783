"""Clips: a few frames of one place, in which signs come and go. Each is to be seen in one frame or in two."""

from dataclasses import replace

import numpy as np

from .questions import Question, ask
from .scene import COLOURS, Scene, codes, layout
from .split import STYLES, Example
from .texture import BACKGROUNDS

FRAMES = 8
SIGNS = 4
"""Signs of a clip; at most two in one frame."""
_SEED = 6
_GRID = (1, 1)
"""Tiles of a frame, as InternVL takes a video's."""


def clip(number: int) -> Example:
    """Clip `number`: its frames in order, and a question about the code of one of its signs."""
    rng = np.random.default_rng([_SEED, number])
    colours = [str(colour) for colour in rng.permutation(list(COLOURS))[:SIGNS]]
    code_of = codes(rng, SIGNS)
    background, seed = str(rng.choice(BACKGROUNDS)), int(rng.integers(2**31))
    while True:  # until no frame is too full
        shown = _when(rng)
        try:
            frames = [
                layout(rng, STYLES["test"], _GRID, [colours[i] for i in here], [code_of[i] for i in here])
                for here in shown
            ]
        except ValueError:
            continue
        break
    scenes = tuple(replace(frame, background=background, seed=seed) for frame in frames)
    return Example(scenes, _asked(rng, scenes, colours[int(rng.integers(SIGNS))]))


def _when(rng: np.random.Generator) -> list[list[int]]:
    """For each frame the signs that it shows."""
    while True:
        shown: list[list[int]] = [[] for _ in range(FRAMES)]
        for sign in range(SIGNS):
            length = int(rng.integers(1, 3))
            first = int(rng.integers(FRAMES - length + 1))
            for frame in shown[first : first + length]:
                frame.append(sign)
        if max(map(len, shown)) <= 2:
            return shown


def _asked(rng: np.random.Generator, scenes: tuple[Scene, ...], colour: str) -> Question:
    signs = [sign for scene in scenes for sign in scene.signs]
    places = tuple(index for index, sign in enumerate(signs) if sign.colour == colour)
    return replace(ask(rng, [signs[places[0]]], "code"), signs=places)
