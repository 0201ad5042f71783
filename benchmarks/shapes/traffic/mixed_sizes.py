"""Requests with few and many visual tokens, mixed."""

from collections.abc import Iterator

from .base import Amount, Case, Glance, side_by_side
from .requests import fresh
from .scenes import LARGE, MEDIUM, SMALL

_SIZES = {"16 visual tokens": SMALL, "80 visual tokens": MEDIUM, "208 visual tokens": LARGE}
_REQUESTS = 24


class MixedSizes:
    name = "mixed-sizes"
    about = "images of 16, 80 and 208 visual tokens: one at a time, and mixed at four clients"
    figures = ("first token", "answer", "whole")
    glance = (
        Glance(
            "images of 16 / 80 / 208 visual tokens, one client",
            "1 client",
            ("16 visual tokens", "80 visual tokens", "208 visual tokens"),
            "answer",
        ),
        Glance("the same mixed, four clients", "4 clients", ("all of it",), "whole"),
    )

    def cases(self, amount: Amount) -> Iterator[Case]:
        for round in range(amount.rounds):
            for clients, requests in ((1, 6), (4, _REQUESTS)):
                each = max(1, amount.of(requests) // len(_SIZES))
                sent = [
                    fresh((11, round, clients, number), grid, name)
                    for number in range(each)
                    for name, grid in _SIZES.items()
                ]
                yield Case(f"{clients} client{'s' * (clients > 1)}", side_by_side(sent, clients))
