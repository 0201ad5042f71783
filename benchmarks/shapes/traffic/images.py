"""Several images in one request."""

from collections.abc import Iterator

from .base import Amount, Case, Glance, side_by_side
from .requests import question
from .scenes import MEDIUM, asked

_CLIENTS = 4


class SeveralImages:
    name = "several-images"
    about = "two and four images of 80 visual tokens in a request, at one client and at four"
    figures = ("first token", "answer", "whole")
    glance = (
        Glance("two images in a request, one client", "2 images, 1 client", ("image",), "answer"),
        Glance("four images, four clients", "4 images, 4 clients", ("all of it",), "whole"),
    )

    def cases(self, amount: Amount) -> Iterator[Case]:
        for round in range(amount.rounds):
            for images in (2, 4):
                for clients, requests in ((1, 2), (_CLIENTS, 8)):
                    sent = [
                        question(asked((8, round, images, clients, n), grid=MEDIUM, images=images))
                        for n in range(amount.of(requests))
                    ]
                    group = f"{images} images, {clients} client{'s' * (clients > 1)}"
                    yield Case(group, side_by_side(sent, clients))
