"""Text-only requests among image requests: what the guide and the pruned prefill do to their neighbours."""

import random
from collections.abc import Iterator

from .base import Amount, Case, Glance
from .requests import arrivals, fresh, opened, text_only

#: Of plain vLLM's capacity for image requests; half of the requests are text-only and cost less.
_SHARE = 0.9
_TOKENS = 32


class TextAmongImages:
    name = "text-among-images"
    about = (
        "an open loop, half of it text-only requests of 32 tokens: their first token and time between tokens"
    )
    figures = (
        "first token", "first token, p99", "per token", "between tokens, p99", "answer", "answer, p99",
    )  # fmt: skip
    glance = (
        Glance(
            "text-only requests among images, first token",
            "0.9 of plain's capacity",
            ("text",),
            "first token",
        ),
        Glance("the same, 99th percentile", "0.9 of plain's capacity", ("text",), "first token, p99"),
        Glance(
            "the same, between tokens, 99th percentile",
            "0.9 of plain's capacity",
            ("text",),
            "between tokens, p99",
        ),
    )

    def cases(self, amount: Amount) -> Iterator[Case]:
        for round in range(amount.rounds):
            rng = random.Random(7000 + round)
            sent = []
            for number, at in enumerate(arrivals(rng, _SHARE * amount.capacity, amount.seconds)):
                text = number % 2 == 1
                sent.append((at, text_only(rng, amount.of(_TOKENS)) if text else fresh((7, round, number))))
            yield Case(f"{_SHARE:g} of plain's capacity", opened(sent), whole=False)
