"""Open-loop load: requests arrive by a Poisson process, whether or not earlier ones are answered."""

import random
from collections.abc import Iterator

from .base import Amount, Case, Glance
from .requests import arrivals, fresh, opened

#: Of the requests per second that plain vLLM answers when it is never idle.
SHARES = (0.5, 0.8, 1.1)


def _group(share: float) -> str:
    return f"{share:g} of plain's capacity"


class OpenLoop:
    name = "open-loop"
    about = "Poisson arrivals of questions about new images, at 0.5, 0.8 and 1.1 of plain's capacity"
    figures = ("answer", "answer, p99", "first token", "first token, p99", "within goal")
    glance = tuple(
        Glance(f"open loop at {share:g} of plain's capacity, {says}", _group(share), ("image",), figure)
        for says, figure in (
            ("median answer", "answer"),
            ("99th percentile", "answer, p99"),
            ("answers within the goal", "within goal"),
        )
        for share in SHARES
    )

    def cases(self, amount: Amount) -> Iterator[Case]:
        for round in range(amount.rounds):
            for share in SHARES:
                rng = random.Random(f"open-loop {round} {share}")
                times = arrivals(rng, share * amount.capacity, amount.seconds)
                sent = [(at, fresh((10, round, number))) for number, at in enumerate(times)]
                yield Case(_group(share), opened(sent), whole=False)
