"""The loss of each request in every way it was asked, as arrays and without texts.

The loss of a request under a setting, in [0, 1]:

* with answers in the data, max(0, w(large alone) - w(setting)): w is what an answer is worth by the metric.
  Questions that only the setting gets right do not make up for others, so the mean loss is at least the drop
  in the metric's mean.
* without, 1 - w(setting), where the large model's own answer is the reference.

A request that is left to the large model alone loses nothing.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vllm_sgl.commands.calibrate.ways import LARGE, Way
from vllm_sgl.config import ExitScore
from vllm_sgl.evaluate.metrics import METRICS
from vllm_sgl.evaluate.questions import Question

Array = NDArray[np.float64]

#: Digits of scores and losses that are kept on disk.
_DIGITS = 6


@dataclass(frozen=True)
class Setting:
    """What a server can be told. threshold: None where nothing exits. score: the exit score that it is of."""

    policy: str
    retention: float
    threshold: float | None
    score: ExitScore = "paper"

    def __str__(self) -> str:
        exits = "no exits" if self.threshold is None else f"exits from {self.threshold:g}"
        exits += f" ({self.score})" if self.score != "paper" else ""
        if self.retention == 1:
            return f"nothing pruned, {exits}"
        return f"{self.retention:.0%} kept ({self.policy}), {exits}"


@dataclass(frozen=True)
class Pruned:
    """The large model under one policy and retention, per request: what is lost, and the visual tokens and
    tiles that it needs. Arrays [requests]."""

    loss: Array
    kept_tokens: Array
    encoded_tiles: Array


@dataclass(frozen=True)
class Requests:
    """Arrays [requests]. scores: by exit score; NaN where the request cannot exit. small_tokens: of the small
    model's answer. small_loss: what is lost where it is the answer. guided: 0 where the request is left to
    the large model alone. pruned: by (policy, retention); retention 1 is always there. whole: whether losses
    are 0 or 1. group: the number of what a request depends on, its image or conversation; None where each has
    one of its own. images: how many a request has; None for one each."""

    prompt_tokens: Array
    visual_tokens: Array
    tiles: Array
    guided: Array
    scores: Mapping[ExitScore, Array]
    small_tokens: Array
    small_loss: Array
    whole: bool
    pruned: Mapping[tuple[str, float], Pruned] = field(default_factory=dict)
    group: Array | None = None
    images: Array | None = None

    def __len__(self) -> int:
        return len(self.guided)

    def by(self, score: ExitScore) -> "Requests":
        """The same with one exit score alone."""
        return replace(self, scores={score: self.scores[score]})

    def some(self, rows: NDArray[np.int64]) -> "Requests":
        """Those of these rows, as often as they are named."""
        columns = {name: getattr(self, name) for name in (*_COLUMNS, *_OPTIONAL)}
        arrays = {name: column[rows] for name, column in columns.items() if column is not None}
        pruned = {
            key: Pruned(one.loss[rows], one.kept_tokens[rows], one.encoded_tiles[rows])
            for key, one in self.pruned.items()
        }
        scores = {name: score[rows] for name, score in self.scores.items()}
        return Requests(**arrays, scores=scores, whole=self.whole, pruned=pruned)

    def group_sizes(self) -> NDArray[np.int64]:
        """How many requests are of one image or conversation, group by group as they first come."""
        return np.bincount(self.group_numbers(), minlength=0)

    def group_numbers(self) -> NDArray[np.int64]:
        """Group numbers of the requests: 0 for the first one's group, 1 for the next new one, and so on."""
        if self.group is None:
            return np.arange(len(self))
        _, first, inverse = np.unique(self.group, return_index=True, return_inverse=True)
        ranks = np.empty(len(first), dtype=np.int64)
        ranks[np.argsort(first)] = np.arange(len(first))
        numbers: NDArray[np.int64] = ranks[inverse]
        return numbers

    def exits(self, setting: Setting) -> NDArray[np.bool_]:
        """Which of them end with the small model's answer."""
        if setting.threshold is None:
            return np.zeros(len(self), dtype=bool)
        return np.asarray(self.scores[setting.score] >= setting.threshold)  # never where it is NaN

    def losses(self, setting: Setting) -> Array:
        """The loss of each request under a setting."""
        kept = self.pruned[setting.policy, setting.retention]
        return np.where(self.exits(setting), self.small_loss, kept.loss)

    def as_json(self) -> dict[str, Any]:
        """Lists of numbers; :meth:`parse` reads them."""
        columns = {name: _listed(getattr(self, name)) for name in _COLUMNS}
        given = {name: getattr(self, name) for name in _OPTIONAL}
        columns |= {name: _listed(column) for name, column in given.items() if column is not None}
        pruned = [
            {"policy": policy, "retention": retention, **{n: _listed(getattr(one, n)) for n in _OF_PRUNED}}
            for (policy, retention), one in self.pruned.items()
        ]
        scores = {name: _listed(score) for name, score in self.scores.items()}
        return {"whole": self.whole, **columns, "scores": scores, "pruned": pruned}

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> "Requests":
        """From what :meth:`as_json` gave."""
        pruned = {
            (one["policy"], one["retention"]): Pruned(*(_array(one[name]) for name in _OF_PRUNED))
            for one in found["pruned"]
        }
        columns = {name: _array(found[name]) for name in (*_COLUMNS, *_OPTIONAL) if name in found}
        # Earlier releases had the paper's score alone.
        listed: Mapping[ExitScore, Any] = found["scores"] if "scores" in found else {"paper": found["score"]}
        scores = {name: _array(score) for name, score in listed.items()}
        return cls(**columns, scores=scores, whole=found["whole"], pruned=pruned)

    @classmethod
    def of(
        cls,
        questions: Sequence[Question],
        ways: Sequence[Way],
        records: Sequence[Mapping[str, Any]],
        metric: str,
    ) -> "Requests":
        """From the records of questions that were asked in all ways."""
        by = {(record["question"], record["way"]): record for record in records}
        worth = METRICS[metric]

        def column(way: Way, name: str) -> Array:
            return _array([by[question.id, way.name][name] for question in questions])

        def loss(way: Way) -> Array:
            values = []
            for question in questions:
                own, answer = by[question.id, LARGE.name]["answer"], by[question.id, way.name]["answer"]
                if question.answers:
                    values.append(max(0.0, worth(own, question.answers) - worth(answer, question.answers)))
                else:
                    values.append(1 - worth(answer, [own]))
            return _array(values)

        smalls = {way.score: way for way in ways if way.score is not None}
        one = next(iter(smalls.values()))  # the answers are the same under every score
        small = [by[question.id, one.name] for question in questions]
        exited = np.array([record["decision"] == "exit" for record in small])
        visual, tiles = column(LARGE, "visual_tokens"), column(LARGE, "tiles")
        unpruned = Pruned(np.zeros(len(questions)), visual, tiles)
        below = [way for way in ways if way.retention is not None]
        policies = list(dict.fromkeys(way.policy for way in below)) or ["top"]
        pruned = {(str(policy), 1.0): unpruned for policy in policies[:1]}
        for way in below:
            assert way.policy is not None
            assert way.retention is not None
            kept = Pruned(loss(way), column(way, "kept_tokens"), column(way, "encoded_tiles"))
            pruned[way.policy, way.retention] = kept
        return cls(
            prompt_tokens=column(LARGE, "prompt_tokens"),
            visual_tokens=visual,
            tiles=tiles,
            guided=_array([record["decision"] != "bypass" for record in small]),
            scores={score: np.where(exited, column(way, "score"), np.nan) for score, way in smalls.items()},
            small_tokens=column(one, "answer_tokens"),
            small_loss=np.where(exited, loss(one), 0.0),
            whole=metric == "exact",
            pruned=pruned,
            group=_array(groups([question.depends_on for question in questions])),
            images=_array([len(question.images) for question in questions]),
        )


_COLUMNS = (
    "prompt_tokens", "visual_tokens", "tiles", "guided", "small_tokens", "small_loss",
)  # fmt: skip
#: Not in files of earlier releases.
_OPTIONAL = ("group", "images")
_OF_PRUNED = ("loss", "kept_tokens", "encoded_tiles")


def groups(shared: Sequence[Iterable[Hashable]]) -> list[int]:
    """The number of each one's group: who has something in common is of one group, directly or by others.

    Args:
        shared: of each one, what others may have too, such as its images; one without any is alone.
    """
    parent = list(range(len(shared)))

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = one = parent[parent[one]]
        return one

    seen: dict[Hashable, int] = {}
    for one, things in enumerate(shared):
        for thing in things:
            parent[root(one)] = root(seen.setdefault(thing, one))
    return [root(one) for one in range(len(shared))]


def _array(values: Sequence[Any]) -> Array:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _listed(values: Array) -> list[float | int | None]:
    def one(value: float) -> float | int | None:
        if np.isnan(value):
            return None
        return int(value) if value.is_integer() else round(value, _DIGITS)

    return [one(float(value)) for value in values]
