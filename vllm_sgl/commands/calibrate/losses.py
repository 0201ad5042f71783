"""The loss of each request in every way it was asked, as arrays and without texts.

The loss of a request under a setting, in [0, 1]:

* with answers in the data, max(0, w(large alone) - w(setting)): w is what an answer is worth by the metric.
  Questions that only the setting gets right do not make up for others, so the mean loss is at least the drop
  in the metric's mean.
* without, 1 - w(setting), where the large model's own answer is the reference.

A request that is left to the large model alone loses nothing.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vllm_sgl.commands.calibrate.ways import LARGE, SMALL, Way
from vllm_sgl.evaluate.metrics import METRICS
from vllm_sgl.evaluate.questions import Question

Array = NDArray[np.float64]

#: Digits of scores and losses that are kept on disk.
_DIGITS = 6


@dataclass(frozen=True)
class Setting:
    """What a server can be told. threshold: None where nothing exits."""

    policy: str
    retention: float
    threshold: float | None

    def __str__(self) -> str:
        exits = "no exits" if self.threshold is None else f"exits from {self.threshold:g}"
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
    """Arrays [requests]. score: NaN where the request cannot exit. small_tokens: of the small model's answer.
    small_loss: what is lost where it is the answer. guided: 0 where the request is left to the large model
    alone. pruned: by (policy, retention); retention 1 is always there. whole: whether losses are 0 or 1.
    group: the number of what a request depends on, its image or conversation; None where each has one of its
    own. images: how many a request has; None for one each."""

    prompt_tokens: Array
    visual_tokens: Array
    tiles: Array
    guided: Array
    score: Array
    small_tokens: Array
    small_loss: Array
    whole: bool
    pruned: Mapping[tuple[str, float], Pruned] = field(default_factory=dict)
    group: Array | None = None
    images: Array | None = None

    def __len__(self) -> int:
        return len(self.score)

    def some(self, rows: NDArray[np.int64]) -> "Requests":
        """Those of these rows, as often as they are named."""
        columns = {name: getattr(self, name) for name in (*_COLUMNS, *_OPTIONAL)}
        arrays = {name: column[rows] for name, column in columns.items() if column is not None}
        pruned = {
            key: Pruned(one.loss[rows], one.kept_tokens[rows], one.encoded_tiles[rows])
            for key, one in self.pruned.items()
        }
        return Requests(**arrays, whole=self.whole, pruned=pruned)

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

    def exits(self, threshold: float | None) -> NDArray[np.bool_]:
        """Which of them end with the small model's answer."""
        if threshold is None:
            return np.zeros(len(self), dtype=bool)
        return np.asarray(self.score >= threshold)  # never where it is NaN

    def losses(self, setting: Setting) -> Array:
        """The loss of each request under a setting."""
        kept = self.pruned[setting.policy, setting.retention]
        return np.where(self.exits(setting.threshold), self.small_loss, kept.loss)

    def as_json(self) -> dict[str, Any]:
        """Lists of numbers; :meth:`parse` reads them."""
        columns = {name: _listed(getattr(self, name)) for name in _COLUMNS}
        given = {name: getattr(self, name) for name in _OPTIONAL}
        columns |= {name: _listed(column) for name, column in given.items() if column is not None}
        pruned = [
            {"policy": policy, "retention": retention, **{n: _listed(getattr(one, n)) for n in _OF_PRUNED}}
            for (policy, retention), one in self.pruned.items()
        ]
        return {"whole": self.whole, **columns, "pruned": pruned}

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> "Requests":
        """From what :meth:`as_json` gave."""
        pruned = {
            (one["policy"], one["retention"]): Pruned(*(_array(one[name]) for name in _OF_PRUNED))
            for one in found["pruned"]
        }
        columns = {name: _array(found[name]) for name in (*_COLUMNS, *_OPTIONAL) if name in found}
        return cls(**columns, whole=found["whole"], pruned=pruned)

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

        small = [by[question.id, SMALL.name] for question in questions]
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
            score=np.where(exited, column(SMALL, "score"), np.nan),
            small_tokens=column(SMALL, "answer_tokens"),
            small_loss=np.where(exited, loss(SMALL), 0.0),
            whole=metric == "exact",
            pruned=pruned,
            group=_array(groups([question.depends_on for question in questions])),
            images=_array([len(question.images) for question in questions]),
        )


_COLUMNS = (
    "prompt_tokens", "visual_tokens", "tiles", "guided", "score", "small_tokens", "small_loss",
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
