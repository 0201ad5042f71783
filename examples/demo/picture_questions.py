"""What is asked: examples of the shipped pair's test split, or a picture of the user's own."""

from dataclasses import dataclass
from pathlib import Path

from tools.sign_reading import example
from tools.sign_reading.scene import paint

#: Numbers of examples of the test split: the first ones, whatever becomes of them.
EXAMPLES = range(1, 25)
#: The one of them that is explained.
EXPLAINED = 6
#: The first request of all, not shown: whatever is set up once is not timed.
WARM_UP = 0


@dataclass(frozen=True)
class PictureQuestion:
    """answer: the right one; None where it is not known."""

    images: tuple[Path, ...]
    text: str
    answer: str | None = None


def sign_question(number: int, directory: Path) -> PictureQuestion:
    """An example of the test split, its images painted into the directory."""
    made = example("test", number)
    images = [directory / f"signs-{number}-{index}.png" for index in range(len(made.scenes))]
    for scene, path in zip(made.scenes, images, strict=True):
        paint(scene).save(path)
    return PictureQuestion(tuple(images), made.question.text, made.question.answer)
