"""Chats of four turns about one image."""

from collections.abc import Iterator

from .base import Amount, Case, Lane
from .requests import chat
from .scenes import asked

_TURNS = 4
_TOGETHER = 4


class Chats:
    name = "chats"
    about = "chats of four turns about one image, one at a time and four at once"
    figures = ("first token", "answer", "whole")

    def cases(self, amount: Amount) -> Iterator[Case]:
        for round in range(amount.rounds):
            yield Case("one chat", (Lane(chat(asked((1, round), _TURNS))),))
            talks = (chat(asked((2, round, number), _TURNS)) for number in range(amount.of(_TOGETHER)))
            yield Case("four chats at once", tuple(map(Lane, talks)))
