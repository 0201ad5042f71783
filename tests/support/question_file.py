"""A small file of questions for `benchmarks.accuracy`, about random images."""

import json
from pathlib import Path

from tests.support.images import QUESTIONS, random_image

#: Width and height of the images of each question.
SIZES = [[(300, 200)], [(224, 112), (112, 224)], [(336, 224)], [(500, 125)]]


def write_questions(folder: Path, answers: list[str] | None = None) -> Path:
    """Four questions, their ids "0" to "3"; those but the last say where the answer is."""
    lines = []
    for number, sizes in enumerate(SIZES):
        names = [f"{number}-{image}.png" for image in range(len(sizes))]
        for name, size in zip(names, sizes, strict=True):
            random_image(number, *size).save(folder / name)
        line = {
            "id": str(number),
            "images": names,
            "question": QUESTIONS[number],
            "answers": [answers[number] if answers else "42"],
            "kind": ("code", "count")[number % 2],
        }
        if number < 3:
            line["answer_boxes"] = [[len(sizes) - 1, 20, 30, 60, 50]]
        lines.append(json.dumps(line) + "\n")
    path = folder / "questions.jsonl"
    path.write_text("".join(lines))
    return path
