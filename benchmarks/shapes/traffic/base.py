"""What a shape of traffic is: which requests are sent when. Plain values, made without a server."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from .scenes import Media

#: Tokens that an answer about signs may have: a code's digits and the end, with room.
ANSWER_TOKENS = 16


@dataclass(frozen=True)
class Turn:
    """A message: text behind its images, videos or neither."""

    role: str
    text: str
    media: tuple[Media, ...] = ()


@dataclass(frozen=True)
class Request:
    """part: the table's row. endless: whether the answer goes on to max_tokens. answers: right ones, if they
    are known."""

    part: str
    turns: tuple[Turn, ...]
    answers: tuple[str, ...] = ()
    max_tokens: int = ANSWER_TOKENS
    endless: bool = False


@dataclass(frozen=True)
class Lane:
    """One client: from `at` seconds on, its requests one after the other."""

    requests: tuple[Request, ...]
    at: float = 0.0


@dataclass(frozen=True)
class Case:
    """One unit of traffic, sent to every setting in turn.

    group: what the table calls it. lanes: clients, side by side. before: requests that come first, one by
    one, and are not counted. whole: whether the seconds from first to last mean something (not under an open
    loop).
    """

    group: str
    lanes: tuple[Lane, ...]
    before: tuple[Request, ...] = ()
    whole: bool = True

    def requests(self) -> Iterator[Request]:
        yield from self.before
        for lane in self.lanes:
            yield from lane.requests

    def media(self) -> list[Media]:
        """Every image and video, once."""
        found = (media for request in self.requests() for turn in request.turns for media in turn.media)
        return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Amount:
    """How much is sent. rounds: cases of each group. seconds: of arrivals, in each open-loop case. capacity:
    requests per second that plain vLLM answers under load. scale: divides numbers of requests, for a smoke
    test."""

    rounds: int = 3
    seconds: float = 25.0
    capacity: float = 1.0
    scale: int = 1

    def of(self, requests: int) -> int:
        """So many requests, or fewer in a smoke test."""
        return max(1, requests // self.scale)


@dataclass(frozen=True)
class Glance:
    """A row of the table at a glance: a figure of one or more parts of a group, in one cell."""

    says: str
    group: str
    parts: tuple[str, ...]
    figure: str


class Shape(Protocol):
    """name: for ``--shapes``. about: one line, for people. figures: what its table shows, names of
    `benchmarks.shapes.figures.FIGURES`, "whole" or "within goal". glance: the few that say the most."""

    name: str
    about: str
    figures: tuple[str, ...]
    glance: tuple[Glance, ...]

    def cases(self, amount: Amount) -> Iterator[Case]:
        """In the order in which they are sent; equal amounts give equal cases."""
        ...


def side_by_side(requests: Sequence[Request], clients: int) -> tuple[Lane, ...]:
    """A closed loop: requests dealt to clients, each of which sends its next when the last is answered."""
    lanes = (tuple(requests[first::clients]) for first in range(clients))
    return tuple(Lane(lane) for lane in lanes if lane)
