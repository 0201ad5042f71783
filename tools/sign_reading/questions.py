"""Questions about scenes, with their answers and the signs that hold the answer."""

from dataclasses import dataclass

import numpy as np

from .scene import Sign

TEMPLATES = {
    "code": ("What is the code on the {colour} sign?", "Which code does the {colour} sign show?"),
    "count": ("How many signs are there?",),
}
SHARES = {"code": 0.8, "count": 0.2}
"""How often each kind is asked."""


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
    return Question(kind, template.format(colour=sign.colour), sign.code, (index,))
