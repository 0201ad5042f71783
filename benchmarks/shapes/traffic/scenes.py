"""Images and videos of signs, and requests about them with right answers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tools.sign_reading.clips import clip
from tools.sign_reading.questions import Question, ask
from tools.sign_reading.scene import COLOURS, Scene, codes, layout
from tools.sign_reading.split import STYLES

#: 12 tiles and a thumbnail: 208 visual tokens, the readers' largest image.
LARGE = (4, 3)
#: 4 tiles and a thumbnail: 80 visual tokens.
MEDIUM = (2, 2)
#: One tile: 16 visual tokens.
SMALL = (1, 1)
_SEED = 77
_SIGNS = {LARGE: 5, MEDIUM: 3, SMALL: 1}
#: Asked again with this behind it, a question is another one: other tokens, the same answer.
_AGAIN = " Read it."
_WAYS = 4


@dataclass(frozen=True, eq=False)
class Media:
    """An image (one frame) or a video. Two are the same only if they are one object: each is marked anew for
    every server that it is sent to (`benchmarks.shapes.bodies`)."""

    frames: tuple[Scene, ...]

    @property
    def video(self) -> bool:
        return len(self.frames) > 1


@dataclass(frozen=True)
class Asked:
    """Media and questions about all of them together."""

    media: tuple[Media, ...]
    questions: tuple[Question, ...]


def asked(
    numbers: Sequence[int], questions: int = 1, grid: tuple[int, int] = LARGE, images: int = 1
) -> Asked:
    """Images of so many tiles, and different questions about codes on them; a function of its arguments.

    Args:
        questions: at most four per sign; images get more signs, up to one of each colour, where needed.
        grid: tiles across and down, of each image.

    Raises:
        ValueError: more questions than can be asked.
    """
    rng = np.random.default_rng([_SEED, *numbers])
    signs = min(len(COLOURS), max(_SIGNS[grid] * images, -(-questions // _WAYS)))
    if questions > _WAYS * signs:
        raise ValueError(f"expected at most {_WAYS * signs} questions, received {questions}")
    colours = [str(colour) for colour in rng.permutation(list(COLOURS))[:signs]]
    scenes = _laid_out(rng, grid, colours, codes(rng, signs), images)
    shown = [sign for scene in scenes for sign in scene.signs]
    found: dict[str, Question] = {}
    while len(found) < questions:
        question = ask(rng, shown, "code")
        if question.text in found:
            question = replace(question, text=question.text + _AGAIN)
        found.setdefault(question.text, question)
    return Asked(tuple(Media((scene,)) for scene in scenes), tuple(found.values()))


def video(number: int) -> Asked:
    """Eight frames of one place, and a question about one of its signs."""
    example = clip(number)
    return Asked((Media(example.scenes),), (example.question,))


def _laid_out(
    rng: np.random.Generator, grid: tuple[int, int], colours: list[str], code_of: list[str], images: int
) -> tuple[Scene, ...]:
    while True:  # until all signs have room
        try:
            return tuple(
                layout(rng, STYLES["test"], grid, colours[image::images], code_of[image::images])
                for image in range(images)
            )
        except ValueError:
            continue
