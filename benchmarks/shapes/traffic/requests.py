"""Requests that several shapes send."""

import random

from .base import Lane, Request, Turn
from .scenes import LARGE, Asked, Media, asked

#: Words of the readers' vocabulary; what a text-only request says is of no matter.
_WORDS = (
    "the", "a", "red", "green", "blue", "sign", "door", "street", "house", "code", "number", "what",
    "which", "is", "on", "near", "left", "right", "two", "three", "four", "many", "people", "show",
    "read", "write", "time", "day", "light", "road", "tree",
)  # fmt: skip


def question(about: Asked, number: int = 0, part: str = "image", endless: int = 0) -> Request:
    """One question about an image, as a request of its own. endless: tokens that the answer goes on to, right
    or not; 0 for one that ends by itself."""
    one = about.questions[number]
    turns = (_first(about.media, one.text),)
    if endless:
        return Request(part, turns, max_tokens=endless, endless=True)
    return Request(part, turns, (one.answer,))


def fresh(
    numbers: tuple[int, ...], grid: tuple[int, int] = LARGE, part: str = "image", endless: int = 0
) -> Request:
    """A question about an image that nothing else asks about."""
    return question(asked(numbers, grid=grid), part=part, endless=endless)


def chat(about: Asked) -> tuple[Request, ...]:
    """A conversation with a turn per question. The history holds right answers, so that it is the same for
    every setting, whatever a server answered."""
    turns: tuple[Turn, ...] = ()
    requests = []
    for number, one in enumerate(about.questions):
        turns += (Turn("user", one.text) if number else _first(about.media, one.text),)
        requests.append(Request(f"turn {number + 1}", turns, (one.answer,)))
        turns += (Turn("assistant", one.answer),)
    return tuple(requests)


def text_only(rng: random.Random, max_tokens: int, words: int = 24) -> Request:
    """A request without images, which decodes max_tokens."""
    text = " ".join(str(rng.randrange(10)) if n % 6 == 0 else rng.choice(_WORDS) for n in range(words))
    return Request("text", (Turn("user", text),), max_tokens=max_tokens, endless=True)


def arrivals(rng: random.Random, rate: float, seconds: float) -> list[float]:
    """Times of a Poisson process, seconds from the start, ascending, given that rate * seconds requests
    arrive: they are then independent and uniform, and a short run has the load that it says."""
    return sorted(rng.uniform(0, seconds) for _ in range(max(1, round(rate * seconds))))


def opened(requests: list[tuple[float, Request]]) -> tuple[Lane, ...]:
    """An open loop: every request is sent at its time, however many are still waiting."""
    return tuple(Lane((request,), at) for at, request in requests)


def _first(media: tuple[Media, ...], text: str) -> Turn:
    return Turn("user", text, media)
