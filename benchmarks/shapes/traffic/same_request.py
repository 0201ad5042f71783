"""The same request again: caches know all of it."""

from collections.abc import Iterator
from dataclasses import replace

from .base import Amount, Case, Glance, Lane
from .requests import fresh

_AGAIN = 4
_AT_ONCE = 8


class SameRequest:
    name = "same-request"
    about = "one request four times in a row, and eight times at once about a new image"
    figures = ("answer", "whole")
    glance = (
        Glance("the same request again", "in a row", ("again",), "answer"),
        Glance("eight equal requests at once", "at once", ("all of it",), "whole"),
    )

    def cases(self, amount: Amount) -> Iterator[Case]:
        for round in range(amount.rounds):
            first = fresh((5, round, 0), part="first")
            again = replace(first, part="again")
            yield Case("in a row", (Lane((first, *[again] * (_AGAIN - 1))),))
            at_once = fresh((5, round, 1), part="equal requests")
            yield Case("at once", (Lane((at_once,)),) * amount.of(_AT_ONCE))
