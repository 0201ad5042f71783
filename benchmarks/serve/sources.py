"""What is asked: pictures that nobody knows an answer about, or sign questions with right answers.

No request is one that a server has seen: a cache that knew it would make a side look faster than it is.
"""

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from typing import Any, Protocol

from PIL import Image

from benchmarks.support import load
from tools.internvl_reference.tiling import Tiling
from tools.sign_reading.scene import TILE, paint
from tools.sign_reading.split import Example, example
from vllm_sgl.evaluate.metrics import exact_match

#: Questions that no load asks: warm-ups, component times, answers that are compared.
_ASIDE = 1_000_000


@dataclass(frozen=True)
class Request:
    """content: a user's turn, OpenAI's form. visual_tokens: unpruned. answer_tokens: of a right answer, with
    its end. answers: right ones; none where nobody knows."""

    content: list[dict[str, Any]]
    visual_tokens: int
    answer_tokens: int
    answers: tuple[str, ...] = ()

    def worth(self, text: str) -> float:
        """1 for a right answer, 0 for a wrong one."""
        return exact_match(text, self.answers)


class Source(Protocol):
    """max_tokens: of an answer. fixed_length: whether all answers are as long as that. known: whether right
    answers are."""

    @property
    def max_tokens(self) -> int: ...
    @property
    def fixed_length(self) -> bool: ...
    @property
    def known(self) -> bool: ...

    def make(self, numbers: Sequence[int], share: float = 1.0) -> list[Request]:
        """Requests that no server has seen; equal numbers ask alike, where the source can.

        Args:
            share: below 1, images are downsampled to so many of their visual tokens, or fewer.
        """
        ...

    def aside(self, how_many: int) -> list[Request]:
        """Requests that no load asks."""
        ...


@dataclass
class Pictures:
    """Pictures that no model can say anything of, each with a question of its own."""

    size: tuple[int, int]
    visual_tokens: int
    max_tokens: int
    fixed_length: bool = True
    known: bool = False
    _seeds: Any = field(default_factory=lambda: count(1), repr=False)

    def make(self, numbers: Sequence[int], share: float = 1.0) -> list[Request]:
        assert share == 1, "nobody asks for downsampled pictures"

        def one(seed: int) -> Request:
            return Request(load.content(seed, self.size), self.visual_tokens, self.max_tokens)

        seeds = [next(self._seeds) for _ in numbers]
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(one, seeds))

    def aside(self, how_many: int) -> list[Request]:
        return self.make(range(how_many))


@dataclass
class Signs:
    """Questions of the test split of `tools.sign_reading`.

    Settings are compared on the same questions, but a server that saw an image again would find it in its
    caches. So each time one pixel in a corner of the image is painted another colour.
    """

    max_tokens: int = 16
    fixed_length: bool = False
    known: bool = True
    _marks: Any = field(default_factory=lambda: count(1), repr=False)
    _asides: Any = field(default_factory=lambda: count(_ASIDE), repr=False)

    def make(self, numbers: Sequence[int], share: float = 1.0) -> list[Request]:
        marks = [next(self._marks) for _ in numbers]
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda both: self._one(*both, share), zip(numbers, marks, strict=True)))

    def aside(self, how_many: int) -> list[Request]:
        return self.make([next(self._asides) for _ in range(how_many)])

    def _one(self, number: int, mark: int, share: float) -> Request:
        asked, images = _painted(number)
        sent = [_marked(_smaller(image, share), mark) for image in images]
        urls = ["data:image/png;base64," + base64.b64encode(png).decode() for png, _ in sent]
        content = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        answer = asked.question.answer
        return Request(
            content=[*content, {"type": "text", "text": asked.question.text}],
            visual_tokens=sum(tokens for _, tokens in sent),
            answer_tokens=len(answer) + 1,  # a token per digit
            answers=(answer,),
        )


#: As the sign readers cut images.
_TILING = Tiling(side=TILE, cells=4, min_tiles=1, max_tiles=12, thumbnail=True)


@lru_cache(maxsize=1024)
def _painted(number: int) -> tuple[Example, tuple[Image.Image, ...]]:
    asked = example("test", number)
    return asked, tuple(paint(scene) for scene in asked.scenes)


def _smaller(image: Image.Image, share: float) -> Image.Image:
    if share == 1:
        return image
    budget = share * _TILING.tokens(_TILING.grid(*image.size))
    return image.resize(_TILING.downsampled(*image.size, budget), Image.Resampling.BICUBIC)


def _marked(image: Image.Image, mark: int) -> tuple[bytes, int]:
    """A PNG with the mark in its corner, and its visual tokens."""
    image = image.convert("RGB").copy()
    image.putpixel((0, 0), (mark % 256, mark // 256 % 256, mark // 65536 % 256))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue(), _TILING.tokens(_TILING.grid(*image.size))
