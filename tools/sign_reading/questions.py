"""Questions about scenes, with their answers and the signs that hold the answer."""

from dataclasses import dataclass

import numpy as np

from .scene import Sign

TEMPLATES = {
    "code": ("What is the code on the {colour} sign?", "Which code does the {colour} sign show?"),
    "colour": ("Which colour is the sign with code {code}?", "What colour has code {code}?"),
    "count": ("How many signs are there?",),
}
SHARES = {"code": 0.8, "count": 0.2}
"""What the splits ask. Which colour a code has can be asked too: training shows it early on, the shipped pair
has not learned it."""


@dataclass(frozen=True)
class Question:
    kind: str
    text: str
    answer: str
    signs: tuple[int, ...]
    """Which of the signs, over all images of the request, the answer is read from."""


def ask(rng: np.random.Generator, signs: list[Sign], kind: str | None = None) -> Question:
    """One question about the signs of a request (of all its images), of a random kind if none is given."""
    kind = kind or str(rng.choice(list(SHARES), p=list(SHARES.values())))
    template = str(rng.choice(TEMPLATES[kind]))
    if kind == "count":
        return Question(kind, template, str(len(signs)), tuple(range(len(signs))))
    index = int(rng.integers(len(signs)))
    sign = signs[index]
    answer = sign.code if kind == "code" else sign.colour
    return Question(kind, template.format(colour=sign.colour, code=sign.code), answer, (index,))
