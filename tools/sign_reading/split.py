"""Splits: what each may contain, and how one is written to disk."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .questions import Question, ask
from .scene import COLOURS, Scene, Style, codes, layout, paint
from .texture import BACKGROUNDS

STYLES = {
    "train": Style(
        fonts=(
            "DejaVuSans",
            "DejaVuSans-Bold",
            "DejaVuSans-Oblique",
            "DejaVuSansMono",
            "DejaVuSansMono-Oblique",
            "DejaVuSerif",
            "DejaVuSerif-Italic",
            "STIXGeneralBol",
            "cmss10",
            "cmtt10",
        ),
        backgrounds=BACKGROUNDS[:-1],
        sizes=(20, 27),
    ),
    "test": Style(
        fonts=("DejaVuSansMono-Bold", "DejaVuSans-BoldOblique", "DejaVuSerif-Bold"),
        backgrounds=BACKGROUNDS,
        sizes=(21, 26),
    ),
}
GRIDS = {"train": ((3, 3), (4, 3), (3, 4)), "test": ((3, 3), (4, 3), (3, 4), (5, 2))}
PAIR_GRID = (2, 2)
PAIRS = 0.15
"""Share of the requests that have two images, of 2 x 2 tiles each."""
_SEEDS = {"train": 1, "test": 2}


@dataclass(frozen=True)
class Example:
    """One request: one or two images and a question about all of them."""

    scenes: tuple[Scene, ...]
    question: Question

    def answer_boxes(self) -> list[list[int]]:
        """[image, x0, y0, x1, y1] of every sign that the answer is read from, pixels."""
        places = [(image, sign.box) for image, scene in enumerate(self.scenes) for sign in scene.signs]
        return [[image, *box] for image, box in (places[index] for index in self.question.signs)]


def scenes(rng: np.random.Generator, split: str, images: int, grid: tuple[int, int]) -> tuple[Scene, ...]:
    """The images of one request: three to six signs in all, no colour and no code twice."""
    count = int(rng.integers(3, 7))
    colours = [str(colour) for colour in rng.permutation(list(COLOURS))[:count]]
    code_of = codes(rng, count)
    image_of = rng.permutation(np.arange(count) % images)
    style = STYLES[split]
    return tuple(
        layout(rng, style, grid, [colours[i] for i in mine], [code_of[i] for i in mine])
        for mine in (np.flatnonzero(image_of == image) for image in range(images))
    )


def example(split: str, number: int) -> Example:
    """Example `number` of a split; depends on nothing else."""
    rng = np.random.default_rng([_SEEDS[split], number])
    images = 2 if rng.random() < PAIRS else 1
    grids = GRIDS[split]
    grid = PAIR_GRID if images == 2 else grids[int(rng.integers(len(grids)))]
    found = scenes(rng, split, images, grid)
    return Example(found, ask(rng, [sign for scene in found for sign in scene.signs]))


def write(split: str, count: int, directory: Path) -> Path:
    """Write PNG files and `questions.jsonl`, the format that `benchmarks.accuracy` reads; returns its path.

    Raises:
        ValueError: there is no such split.
    """
    if split not in STYLES:
        raise ValueError(f"split must be one of {', '.join(STYLES)}; got {split!r}")
    return write_examples((example(split, number) for number in range(count)), split, directory)


def write_examples(examples: Iterable[Example], name: str, directory: Path) -> Path:
    """The same for any examples; `name` begins the names of files and questions."""
    directory.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, made in enumerate(examples):
        names = []
        for image, scene in enumerate(made.scenes):
            names.append(f"{name}-{number:05}-{image}.png")
            paint(scene).save(directory / names[-1])
        line = {
            "id": f"{name}-{number:05}",
            "images": names,
            "question": made.question.text,
            "answers": [made.question.answer],
            "kind": made.question.kind,
            "answer_boxes": made.answer_boxes(),
        }
        lines.append(json.dumps(line) + "\n")
    path = directory / "questions.jsonl"
    path.write_text("".join(lines))
    return path
