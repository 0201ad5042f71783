"""Many questions about one image, each a request of its own."""

from collections.abc import Iterator

from .base import Amount, Case, Glance, Lane, Request
from .requests import question
from .scenes import Asked, asked

_QUESTIONS = 8
_MANY = 30


class Questions:
    name = "questions"
    about = (
        "eight questions about one image, in turn, at once, and at once about a known image; thirty in turn"
    )
    figures = ("answer", "whole")
    glance = (
        Glance(
            "eight questions on one image in turn, from the second on",
            "in turn",
            ("later questions",),
            "answer",
        ),
        Glance("eight at once on a new image", "at once, new image", ("all of it",), "whole"),
        Glance("eight at once on a known image", "at once, known image", ("all of it",), "whole"),
        Glance("thirty questions on one image in turn", "30 in turn", ("all of it",), "whole"),
    )

    def cases(self, amount: Amount) -> Iterator[Case]:
        count = max(2, amount.of(_QUESTIONS))
        for round in range(amount.rounds):
            in_turn, at_once, known = (asked((3, round, kind), count + 1) for kind in range(3))
            yield Case("in turn", (Lane(_in_turn(in_turn, count)),))
            each = tuple(Lane((question(at_once, number, "questions"),)) for number in range(count))
            yield Case("at once, new image", each)
            each = tuple(Lane((question(known, number, "questions"),)) for number in range(count))
            yield Case("at once, known image", each, before=(question(known, count),))
        many = max(2, amount.of(_MANY))
        yield Case(f"{_MANY} in turn", (Lane(_in_turn(asked((4,), many), many)),))


def _in_turn(about: Asked, count: int) -> tuple[Request, ...]:
    first = question(about, 0, "first question")
    return (first, *(question(about, number, "later questions") for number in range(1, count)))
