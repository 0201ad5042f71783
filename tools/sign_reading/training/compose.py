"""Images put together from the bank's visual tokens, so that the decoder can train on a frozen encoder.

The encoder sees each tile alone. Any tiles side by side are therefore a possible image, and their features
have to be computed only once.
"""

from collections import defaultdict

import numpy as np

from ..questions import Question, ask
from .bank import SIDE, Bank, Plate

Drawn = tuple[np.ndarray, list[Question]]
"""Indices into a bank's visual tokens, and questions about the signs that they show."""
TOKENS = SIDE * SIDE
QUESTIONS = 4


class Composer:
    """Draws images from a bank: indices into its visual tokens, and questions about the signs."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.by_tile: dict[int, list[Plate]] = defaultdict(list)
        for plate in bank.plates:
            self.by_tile[plate.tile].append(plate)
        self.empty = np.array([tile for tile in range(len(bank)) if tile not in self.by_tile])
        self.background = np.flatnonzero(bank.colour.ravel() == 0)

    def few(self, rng: np.random.Generator, visual: int, longest: int, kind: str | None) -> Drawn:
        """A few visual tokens: all of three to five signs, and background up to `visual` tokens in all.

        Args:
            longest: most digits of a code.

        Returns:
            Indices [visual] into the bank's visual tokens, and questions of this kind; None is all kinds.
        """
        signs: list[Plate] = []
        room = visual
        wanted = int(rng.integers(3, 6))
        while len(signs) < wanted:
            plate = self.bank.plates[int(rng.integers(len(self.bank.plates)))]
            if len(plate.code) > longest or any(
                s.colour == plate.colour or s.code == plate.code for s in signs
            ):
                continue
            if len(plate.tokens) > room:
                break
            room -= len(plate.tokens)
            signs.append(plate)
        pieces = [plate.tile * TOKENS + np.array(plate.tokens) for plate in signs]
        pieces += [np.array([token]) for token in rng.choice(self.background, room)]
        order = rng.permutation(len(pieces))
        return np.concatenate([pieces[index] for index in order]), _ask(rng, signs, kind)

    def tiles(self, rng: np.random.Generator, count: int) -> Drawn:
        """A whole image of `count` tiles with three to six signs, without a thumbnail.

        Returns:
            Indices [count * 16] into the bank's visual tokens, and questions of all kinds.
        """
        wanted = int(rng.integers(3, 7))
        signs: list[Plate] = []
        chosen: list[int] = []
        while len(signs) < wanted and len(chosen) < count:
            tile = self.bank.plates[int(rng.integers(len(self.bank.plates)))].tile
            together = signs + self.by_tile[tile]
            distinct = min(len({plate.colour for plate in together}), len({plate.code for plate in together}))
            if distinct == len(together) <= wanted:
                signs = together
                chosen.append(tile)
        chosen += list(rng.choice(self.empty, count - len(chosen)))
        order = rng.permutation(count)
        tokens = np.array(chosen)[order][:, None] * TOKENS + np.arange(TOKENS)
        return tokens.ravel(), _ask(rng, signs, None)


def _ask(rng: np.random.Generator, signs: list[Plate], kind: str | None) -> list[Question]:
    return [ask(rng, signs, kind) for _ in range(QUESTIONS)]
