"""Long answers: decoding outweighs what pruning saves."""

from collections.abc import Iterator

from .base import Amount, Case, Glance, side_by_side
from .requests import fresh

_TOKENS = 96


class LongAnswers:
    name = "long-answers"
    about = f"answers of {_TOKENS} tokens about new images, at one client and at four"
    figures = ("first token", "answer", "per token", "whole")
    glance = (
        Glance("an answer of 96 tokens, one client, first token", "1 client", ("image",), "first token"),
        Glance("the same, whole answer", "1 client", ("image",), "answer"),
        Glance("four clients, first token", "4 clients", ("image",), "first token"),
    )

    def cases(self, amount: Amount) -> Iterator[Case]:
        tokens = amount.of(_TOKENS)
        for round in range(amount.rounds):
            for clients, requests in ((1, 2), (4, 8)):
                numbers = range(amount.of(requests))
                sent = [fresh((6, round, clients, n), endless=tokens) for n in numbers]
                yield Case(f"{clients} client{'s' * (clients > 1)}", side_by_side(sent, clients))
