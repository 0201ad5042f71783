"""Streams that decode while image requests are guided."""

import random
from collections.abc import Iterator

from .base import Amount, Case, Glance, Lane
from .requests import arrivals, fresh, opened, text_only

_STREAMS = 2
_TOKENS = 256
#: Of plain vLLM's capacity for image requests.
_SHARE = 0.5


class Streams:
    name = "streams"
    about = "two text streams of 256 tokens decode while image requests arrive: time between their tokens"
    figures = ("per token", "between tokens, p99", "answer")
    glance = (
        Glance(
            "streams while images arrive, seconds per token",
            "images at 0.5 of plain's capacity",
            ("text",),
            "per token",
        ),
        Glance(
            "the same, between tokens, 99th percentile",
            "images at 0.5 of plain's capacity",
            ("text",),
            "between tokens, p99",
        ),
    )

    def cases(self, amount: Amount) -> Iterator[Case]:
        for round in range(amount.rounds):
            rng = random.Random(9000 + round)
            streams = tuple(Lane((text_only(rng, amount.of(_TOKENS)),)) for _ in range(_STREAMS))
            times = arrivals(rng, _SHARE * amount.capacity, amount.seconds / 2)
            sent = [(at, fresh((9, round, number))) for number, at in enumerate(times)]
            yield Case(f"images at {_SHARE:g} of plain's capacity", streams + opened(sent), whole=False)
