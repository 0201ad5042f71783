"""Questions of every kind, and what each is answered with when it is asked alone."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.hard.clients import Result, at_once, body
from tests.serve.asking import SHORT
from tests.support.images import QUESTIONS
from tests.support.server import Server
from vllm_sgl.core import Reason

#: Why a request of these may be bypassed under load, or when the guide is in trouble. It is answered all the
#: same, as without SGL.
TROUBLE = {
    Reason.GUIDE_FAILED, Reason.GUIDE_DEAD, Reason.GUIDE_TIMEOUT, Reason.GUIDE_BUSY, Reason.GUIDE_UNWELL,
}  # fmt: skip


#: Answers of so many tokens are written to their end, whatever the model would rather do.
LONG = 120


@dataclass(frozen=True)
class Question:
    """seeds: one per image. xargs: ``vllm_xargs``, as pairs."""

    text: str
    seeds: tuple[int, ...]
    max_tokens: int
    xargs: tuple[tuple[str, Any], ...] = ()

    def body(self, server: Server, **xargs: Any) -> dict[str, Any]:
        options: dict[str, Any] = {"max_tokens": self.max_tokens, "ignore_eos": self.max_tokens >= LONG}
        if self.xargs or xargs:
            options["vllm_xargs"] = {**dict(self.xargs), **xargs}
        return body(server, self.text, *self.seeds, **options)


def questions(count: int, seed: int = 0) -> list[Question]:
    """So many different ones: no, one or two images, short and long answers, exits in and out of reach, soft
    and hard pruning."""
    rng = random.Random(seed)
    # The small model ends this answer by itself, so that there is an exit among them.
    found = {Question(SHORT[0], (SHORT[1],), 40, (("sgl_exit_threshold", 0),)): None}
    while len(found) < count:
        images = tuple(rng.randrange(10_000) for _ in range(rng.choice((0, 1, 1, 1, 2))))
        xargs: dict[str, Any] = {}
        if rng.random() < 0.4:
            xargs["sgl_exit_threshold"] = rng.choice((0, 0.23, 0.5))
        if rng.random() < 0.4:
            xargs["sgl_retention"] = rng.choice((0.09, 0.5, 1))
        tokens = rng.choice((4, 12, 40, LONG, LONG))
        found[Question(rng.choice(QUESTIONS), images, tokens, tuple(xargs.items()))] = None
    return list(found)


class Answer(NamedTuple):
    text: str
    finish_reason: str
    decision: str
    kept_tokens: int
    completion_tokens: int


def answer(result: Result) -> Answer:
    assert result.status == 200, (result.status, result.body, result.error)
    choice, report = result.body["choices"][0], result.body["sgl"]
    return Answer(
        choice["message"]["content"], choice["finish_reason"], report["decision"], report["kept_tokens"],
        result.body["usage"]["completion_tokens"],
    )  # fmt: skip


class Reference:
    """What questions are answered with alone: guided, and as if SGL were off."""

    def __init__(self, server: Server, asked: Iterable[Question]) -> None:
        self.questions = list(asked)
        self._guided: dict[Question, Answer] = {}
        self._unguided: dict[Question, Answer] = {}
        for question in self.questions:
            (guided,) = at_once(server, [question.body(server)])
            (unguided,) = at_once(server, [question.body(server, sgl_enabled=0)])
            assert guided.body["sgl"]["reason"] not in TROUBLE, guided.body["sgl"]
            self._guided[question] = answer(guided)
            self._unguided[question] = answer(unguided)
        # They are worth asking: the guide makes a difference, and answers tell questions apart.
        ways = Counter(given.decision for given in self._guided.values())
        assert len(self.questions) < 8 or {"prune", "exit", "bypass"} <= ways.keys(), ways

    def check(self, question: Question, result: Result) -> str:
        """Assert that this is the answer; how it came about: ``"prune"``, ``"exit"``, ``"bypass"``, or why
        the guide was left out."""
        given = answer(result)
        reason = result.body["sgl"]["reason"]
        if given.decision == "bypass" and reason in TROUBLE:
            expected = self._unguided[question]
        else:
            reason, expected = given.decision, self._guided[question]
        assert given._replace(decision="") == expected._replace(decision=""), (
            question,
            reason,
            given,
            expected,
        )
        return reason

    def check_all(self, asked: Sequence[Question], results: Sequence[Result]) -> Counter[str]:
        """Assert that all are right; how many came about in which way."""
        return Counter(self.check(*pair) for pair in zip(asked, results, strict=True))
