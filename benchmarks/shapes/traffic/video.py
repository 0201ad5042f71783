"""Videos of eight frames."""

from collections.abc import Iterator

from .base import Amount, Case, Glance, side_by_side
from .requests import question
from .scenes import video


class Videos:
    name = "video"
    about = "videos of eight frames (128 visual tokens), at one client and at four"
    figures = ("first token", "answer", "whole")
    glance = (
        Glance("a video of eight frames, one client", "1 client", ("video",), "answer"),
        Glance("videos, four clients", "4 clients", ("all of it",), "whole"),
    )

    def cases(self, amount: Amount) -> Iterator[Case]:
        for round in range(amount.rounds):
            for clients, requests in ((1, 2), (4, 8)):
                first = 5000 + 100 * round + 10 * clients
                sent = [question(video(first + n), part="video") for n in range(amount.of(requests))]
                yield Case(f"{clients} client{'s' * (clients > 1)}", side_by_side(sent, clients))
