"""The ways in which every question is asked, so that any setting's answer can be put together from them.

The exit score does not depend on the threshold, and the pruned answer not on whether the question might have
exited: what the small model says, and the large one under each retention and policy, are all there is to ask.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vllm_sgl.config import ExitScore
from vllm_sgl.core import Reason
from vllm_sgl.evaluate.backends import Reply
from vllm_sgl.evaluate.errors import UsageError
from vllm_sgl.evaluate.one_look import QUESTION
from vllm_sgl.evaluate.questions import Question, data_url

#: The guide's own state had a hand in these; asked again, the request would go another way.
_PASSING = (
    Reason.GUIDE_FAILED, Reason.GUIDE_DEAD, Reason.GUIDE_TIMEOUT, Reason.GUIDE_BUSY, Reason.GUIDE_UNWELL,
)  # fmt: skip


@dataclass(frozen=True)
class Way:
    """policy, retention: None for the large model alone, and for the small one. score: of the small one's
    answer, None for the others."""

    name: str
    policy: str | None = None
    retention: float | None = None
    score: ExitScore | None = None

    @property
    def keys(self) -> dict[str, Any]:
        """The request's ``sgl_*`` keys."""
        if self == LARGE:
            return {"sgl_enabled": 0}
        if self.score is not None:  # exits wherever an exit is possible, with its score
            return {"sgl_exit_threshold": 0, "sgl_exit_score": self.score}
        return {"sgl_retention": self.retention, "sgl_policy": self.policy, "sgl_exit_threshold": "off"}


LARGE = Way("large")


def small(score: ExitScore) -> Way:
    """The small model, with this score of its answer. Looks are remembered, so further scores cost little."""
    return Way("small" if score == "paper" else f"small {score}", score=score)


def pruned(policy: str, retention: float) -> Way:
    """Pruned, without exits."""
    return Way(f"{policy} {retention:g}", policy, retention)


def plan(
    policies: Sequence[str], retentions: Iterable[float], scores: Iterable[ExitScore] = ("paper",)
) -> list[Way]:
    """All ways; every visual token kept is the large model alone."""
    below = [retention for retention in retentions if retention < 1]
    asked = [LARGE, *map(small, scores)]
    return [*asked, *(pruned(policy, retention) for policy in policies for retention in below)]


@dataclass(frozen=True)
class Asked:
    """One question asked in one way. in_process: whether a guide reads the question's id."""

    question: Question
    way: Way
    max_tokens: int
    in_process: bool

    @cached_property
    def messages(self) -> list[dict[str, Any]]:
        """The images, then the question."""
        images = [
            {"type": "image_url", "image_url": {"url": data_url(path)}} for path in self.question.images
        ]
        return [{"role": "user", "content": [*images, {"type": "text", "text": self.question.text}]}]

    @property
    def xargs(self) -> dict[str, Any]:
        own = {QUESTION: self.question.id} if self.in_process else {}
        return {**self.way.keys, **own}

    def record(self, reply: Reply) -> dict[str, Any]:
        """What is kept of a reply.

        Raises:
            UsageError: where it came another way than it was asked for, with what to do.
        """
        sgl = reply.sgl
        if sgl is None:
            raise UsageError(f"{self._where}: the reply has no sgl object; start the server with --sgl-small")
        self._check(sgl["decision"], sgl["reason"])
        names = ("decision", "reason", "visual_tokens", "kept_tokens", "tiles", "encoded_tiles", "score")
        return {
            "question": self.question.id,
            "way": self.way.name,
            "answer": reply.text,
            "prompt_tokens": reply.prompt_tokens,
            "answer_tokens": reply.answer_tokens,
            **{name: sgl[name] for name in names},
        }

    def _check(self, decision: str, reason: str | None) -> None:
        if reason == Reason.BREAK_EVEN:
            raise UsageError(
                f"{self._where}: bypassed as {reason}, so its answer shows nothing; start the server with "
                "--sgl-break-even off for the calibration"
            )
        if reason in _PASSING:
            raise UsageError(
                f"{self._where}: the guide was not available ({reason}). The answers so far are kept: run "
                "the same command again, with a lower --concurrency if it was busy"
            )
        if self.way.retention is not None and decision == "exit":
            raise UsageError(f"{self._where}: expected no exit, received one; is the server of this version?")

    @property
    def _where(self) -> str:
        return f"question {self.question.id!r}, {self.way.name}"
