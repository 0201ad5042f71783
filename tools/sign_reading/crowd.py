"""Scenes full of signs, of which a question asks for one: looking unusual is not enough to matter."""

import numpy as np

from .questions import ask
from .scene import COLOURS, codes, layout
from .split import GRIDS, STYLES, Example

_SEED = 5


def crowded(number: int, signs: int) -> Example:
    """Example `number` of the test split's style with so many signs on one image.

    The sign that is asked for is the only one of its colour; the others share the other seven.
    """
    rng = np.random.default_rng([_SEED, number])
    grid = GRIDS["test"][int(rng.integers(len(GRIDS["test"])))]
    asked, *others = (str(colour) for colour in rng.permutation(list(COLOURS)))
    distinct = others[: signs - 1]
    colours = [asked, *distinct, *(str(c) for c in rng.choice(others, signs - 1 - len(distinct)))]
    scene = layout(rng, STYLES["test"], grid, colours, codes(rng, signs))
    return Example((scene,), ask(rng, [scene.signs[0]], "code"))
