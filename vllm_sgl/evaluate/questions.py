"""Question files: one JSON object a line.

    {"id": "7", "images": ["7.png"], "question": "What is the code?", "answers": ["42"]}

``images`` are paths relative to the file (``image`` for one); ``id`` may be missing, it is the line number
then. ``answers`` are all that count as right; ``vllm-sgl calibrate`` does without, where no line has any.
``conversation`` names what a question is a turn of: turns of one conversation depend on each other, as do
questions about one image. ``kind`` groups questions in the results. ``answer_boxes`` names where the answer
is to be seen: [[image, x0, y0, x1, y1], ...], image counted from 0, pixels of the original, x1 and y1
outside. Any other key is ignored.
"""

import base64
import json
import mimetypes
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_sgl.evaluate.errors import UsageError

Box = tuple[int, float, float, float, float]


@dataclass(frozen=True)
class Question:
    """answers: empty where the file names none. boxes: (image, x0, y0, x1, y1) each, in pixels; empty where
    the file names none."""

    id: str
    images: tuple[Path, ...]
    text: str
    answers: tuple[str, ...]
    kind: str | None = None
    boxes: tuple[Box, ...] = ()
    conversation: str | None = None

    @property
    def depends_on(self) -> list[Hashable]:
        """What it may share with other questions, whose losses then tell less than as many others."""
        own: list[Hashable] = [image.resolve() for image in self.images]
        return own if self.conversation is None else [*own, ("conversation", self.conversation)]


def load(path: Path, limit: int | None = None, *, answered: bool = True) -> list[Question]:
    """The first ``limit`` questions of a file, or all.

    answered: whether every question must have answers; otherwise all have, or none.

    Raises:
        UsageError: naming file and line, what was expected and what came.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: cannot be read ({error}); expected a JSON Lines file of questions"
        ) from None
    questions: list[Question] = []
    for number, line in enumerate(lines, 1):
        if limit is not None and len(questions) == limit:
            break
        if line.strip():
            try:
                questions.append(_question(_object(line), number, path.parent, answered))
            except UsageError as error:
                raise UsageError(f"{path}:{number}: {error}") from None
    if not questions:
        raise UsageError(f"{path}: no questions; expected one JSON object a line")
    twice = [id for id, count in Counter(question.id for question in questions).items() if count > 1]
    if twice:
        raise UsageError(
            f"{path}: id {twice[0]!r} occurs more than once; give every question an id of its own"
        )
    without = [question.id for question in questions if not question.answers]
    if 0 < len(without) < len(questions):
        raise UsageError(
            f"{path}: answers: expected in every line or in none; {len(without)} of {len(questions)} lack "
            f"them, the first is {without[0]!r}"
        )
    return questions


def data_url(image: Path) -> str:
    """An image file as a ``data:`` URL."""
    return encoded(mimetypes.guess_type(image)[0] or "image/png", image.read_bytes())


def encoded(kind: str, content: bytes) -> str:
    """The ``data:`` URL of a file's content. kind: its MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _object(line: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"expected a JSON object, received {line[:60]!r} ({error})") from None
    if not isinstance(found, dict):
        raise UsageError(f"expected a JSON object, received {line[:60]!r}")
    return found


def _question(found: Mapping[str, Any], number: int, folder: Path, answered: bool) -> Question:
    names = found.get("images", found.get("image"))
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not _strings(names):
        raise UsageError(f"images: expected a list of paths, received {names!r}")
    images = tuple(folder / name for name in names)
    for image in images:
        if not image.is_file():
            raise UsageError(f"images: there is no file {image}; paths are relative to the file of questions")
    text, answers, kind = found.get("question"), found.get("answers"), found.get("kind")
    if not isinstance(text, str) or not text:
        raise UsageError(f"question: expected a text, received {text!r}")
    if not _strings(answers) and (answered or answers is not None):
        raise UsageError(f"answers: expected a list of accepted texts, received {answers!r}")
    if kind is not None and not isinstance(kind, str):
        raise UsageError(f"kind: expected a text, received {kind!r}")
    conversation = found.get("conversation")
    if conversation is not None and not isinstance(conversation, str):
        raise UsageError(f"conversation: expected a text, received {conversation!r}")
    boxes = tuple(_box(box, len(images)) for box in found.get("answer_boxes") or ())
    id = str(found.get("id", number))
    return Question(id, images, text, tuple(answers or ()), kind, boxes, conversation)


def _strings(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _box(box: Any, images: int) -> Box:
    numbers = isinstance(box, list) and len(box) == 5 and all(isinstance(x, (int, float)) for x in box)
    if not numbers or box[0] not in range(images) or box[1] >= box[3] or box[2] >= box[4]:
        raise UsageError(
            f"answer_boxes: expected [image, x0, y0, x1, y1] with image below {images}, x0 < x1 and y0 < y1; "
            f"received {box!r}"
        )
    return tuple(box)
