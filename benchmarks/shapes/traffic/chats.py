"""Chats of four turns about one image."""

from collections.abc import Iterator

from .base import Amount, Case, Glance, Lane
from .requests import chat
from .scenes import asked

_TURNS = 4
_TOGETHER = 4


class Chats:
    name = "chats"
    about = "chats of four turns about one image, one at a time and four at once"
    figures = ("first token", "answer", "whole")
    glance = (
        Glance("a chat's first turn, first token", "one chat", ("turn 1",), "first token"),
        Glance("its turns 2 / 3 / 4, first token", "one chat", ("turn 2", "turn 3", "turn 4"), "first token"),
        Glance("the whole chat", "one chat", ("all of it",), "whole"),
        Glance("four chats at once", "four chats at once", ("all of it",), "whole"),
    )

    def cases(self, amount: Amount) -> Iterator[Case]:
        for round in range(amount.rounds):
            yield Case("one chat", (Lane(chat(asked((1, round), _TURNS))),))
            talks = (chat(asked((2, round, number), _TURNS)) for number in range(amount.of(_TOGETHER)))
            yield Case("four chats at once", tuple(map(Lane, talks)))
