"""Every question under every setting: once one at a time, which gives seconds, then all at once, which gives
requests per second."""

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TextIO

from vllm_sgl.evaluate.metrics import exact_match

from .asker import Asker
from .picture_questions import PictureQuestion

#: Requests at once in the second part.
CLIENTS = 4
#: And so many before the next setting has its turn.
GROUP = 2 * CLIENTS
#: Requests of a setting in each part, at least: few questions are asked again.
LEAST = 5

Settings = Sequence[tuple[str, Mapping[str, Any]]]


@dataclass
class Measured:
    """What came of one setting. replies: (question, reply) of every request of both parts. seconds: of each
    request that was asked alone. rate: requests per second, CLIENTS of them at a time."""

    name: str
    replies: list[tuple[PictureQuestion, Any]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    rate: float = 0.0

    @property
    def median(self) -> float:
        """Seconds of a question."""
        return statistics.median(self.seconds)

    @property
    def known(self) -> int:
        """Questions whose right answer is known."""
        return len({question for question, _ in self.replies if question.answer is not None})

    @property
    def wrong(self) -> dict[PictureQuestion, str]:
        """Of these, the ones that any request got wrong, with what it was answered."""
        found = {}
        for question, reply in self.replies:
            said = reply.choices[0].message.content
            if question.answer is not None and exact_match(said, [question.answer]) != 1:
                found[question] = said
        return found

    @property
    def score(self) -> int:
        """Questions that every request got right."""
        return self.known - len(self.wrong)

    @property
    def right(self) -> str:
        return f"{self.score} of {self.known}" if self.known else "-"

    @property
    def exits(self) -> float:
        """Share of all requests."""
        return sum(reply.sgl["decision"] == "exit" for _, reply in self.replies) / len(self.replies)

    def share(self, part: str, whole: str) -> float:
        """Of all requests together, by two fields of the report."""
        total = sum(reply.sgl[whole] for _, reply in self.replies)
        return sum(reply.sgl[part] for _, reply in self.replies) / total if total else 0.0


def measure(
    asker: Asker,
    questions: Sequence[PictureQuestion],
    settings: Settings,
    warm_up: PictureQuestion,
    out: TextIO | None = None,
) -> list[Measured]:
    """Ask; one result per setting, in their order. Progress is shown where `out` is a terminal."""
    asked = list(questions) * -(-LEAST // len(questions))
    found = [Measured(name) for name, _ in settings]
    progress = _Progress(2 * len(asked) * len(settings), out or sys.stdout)
    for _, options in settings:
        asker.ask(warm_up, options)
    for question in asked:  # settings in turn, so that a busy moment of the machine meets all of them
        for measured, (_, options) in zip(found, settings, strict=True):
            reply, seconds = asker.ask(question, options)
            measured.replies.append((question, reply))
            measured.seconds.append(seconds)
            progress.one("one at a time")
    spent = [0.0] * len(settings)
    with ThreadPoolExecutor(CLIENTS) as clients:
        for begin in range(0, len(asked), GROUP):
            for place, (measured, (_, options)) in enumerate(zip(found, settings, strict=True)):
                began = time.perf_counter()
                group = asked[begin : begin + GROUP]
                ask = partial(_answer, asker, options)
                for question, reply in zip(group, clients.map(ask, group), strict=True):
                    measured.replies.append((question, reply))
                    progress.one(f"{CLIENTS} at once")
                spent[place] += time.perf_counter() - began
    for measured, seconds in zip(found, spent, strict=True):
        measured.rate = len(asked) / seconds
    progress.end()
    return found


def _answer(asker: Asker, options: Mapping[str, Any], question: PictureQuestion) -> Any:
    return asker.ask(question, options)[0]


class _Progress:
    def __init__(self, total: int, out: TextIO) -> None:
        self._total, self._out, self._done, self._began = total, out, 0, time.monotonic()

    def one(self, doing: str) -> None:
        self._done += 1
        if self._out.isatty():
            spent = time.monotonic() - self._began
            self._out.write(f"\r  {self._done} of {self._total} answers, {doing}, {spent:.0f} s    ")
            self._out.flush()

    def end(self) -> None:
        if self._out.isatty():
            self._out.write("\r" + " " * 60 + "\r")
        spent = time.monotonic() - self._began
        self._out.write(f"  {self._done} answers in {spent:.0f} s\n\n")
        self._out.flush()
