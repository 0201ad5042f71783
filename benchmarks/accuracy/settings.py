"""What is compared: a setting is one way to answer every question."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vllm_sgl.evaluate.questions import Question


@dataclass(frozen=True)
class Method:
    """about: one line for ``--help``. prunes: has a setting per retention below 1 and, in this process, per
    positions. reduces: has a setting per retention below 1, and positions of its own. ranking: which visual
    tokens the large model keeps is ranked here, not by the small model. outside: the large model runs in
    transformers for it, so it must be a local checkpoint."""

    about: str
    prunes: bool = False
    reduces: bool = False
    ranking: str | None = None
    outside: bool = False

    def asks(self, question: Question) -> bool:
        """Whether it means anything for a question."""
        if self.ranking == "box":
            return bool(question.boxes)
        return self.ranking != "frames" or len(question.images) > 1


METHODS = {
    "full": Method("the large model with every visual token"),
    "small": Method("the small model alone, and its exit score (an exit threshold of 0)"),
    "sgp": Method("pruned by the small model's attention: SGL", prunes=True),
    "random": Method("as many visual tokens, drawn at random", prunes=True, ranking="random"),
    "frames": Method(
        "whole images in random order, as many visual tokens (questions of several images)",
        prunes=True,
        ranking="frames",
    ),
    "downsample": Method(
        "the image resized to as many visual tokens or fewer (whole tiles, so one at least)", reduces=True
    ),
    "fastv": Method(
        "ranked by the large model's own second layer, as FastV does", True, ranking="fastv", outside=True
    ),
    "divprune": Method("a set far apart from each other: DivPrune", True, ranking="divprune", outside=True),
    "cdpruner": Method(
        "a diverse set that has to do with the question: CDPruner", True, ranking="cdpruner", outside=True
    ),
    "dpp": Method("the same without the question, all tokens as relevant", True, ranking="dpp", outside=True),
    "tome": Method(
        "merged in the vision encoder: ToMe (answers of transformers)",
        reduces=True,
        ranking="tome",
        outside=True,
    ),
    "oracle": Method(
        "ranked by the large model's own attention by SGL's formula", True, ranking="oracle", outside=True
    ),
    "box": Method(
        "the visual tokens that show the answer first (data with answer_boxes)", prunes=True, ranking="box"
    ),
    "blind": Method("one visual token, drawn at random: what the question alone gives", ranking="random"),
}


@dataclass(frozen=True)
class Setting:
    """retention: share of visual tokens, None where the method has none. positions: of kept tokens, None
    where nothing is kept or the server decides. query_rows: None for the default. exit_threshold: asked of
    the real path; None for no exits."""

    method: str
    retention: float | None = None
    positions: str | None = None
    query_rows: str | None = None
    exit_threshold: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def label(self) -> str:
        """All of it on one line, defaults left out."""
        parts = [self.method if self.retention is None else f"{self.method} {self.retention:g}"]
        parts += [f"{self.positions} positions"] if self.positions == "packed" else []
        parts += [f"rows {self.query_rows}"] if self.query_rows else []
        parts += [f"exits from {self.exit_threshold:g}"] if self.exit_threshold is not None else []
        return ", ".join(parts)


def plan(
    methods: Iterable[str],
    retentions: Iterable[float],
    positions: Sequence[str | None],
    query_rows: Sequence[str | None],
    exit_thresholds: Sequence[float] = (),
) -> list[Setting]:
    """Every setting to answer, those of one value of positions together.

    Exit thresholds are asked at every retention, 1 included; at retention 1 every method is ``full``.
    """
    below = [retention for retention in retentions if retention < 1]
    settings = []
    for place, name in itertools.product(positions, methods):
        method = METHODS[name]
        first = place == positions[0]
        if method.prunes:
            rows = query_rows if name == "sgp" else [None]
            settings += [Setting(name, r, place, q) for r, q in itertools.product(below, rows)]
        elif method.reduces:
            settings += [Setting(name, r) for r in below if first]
        elif first:
            settings.append(Setting(name))
        if name == "sgp":
            pairs = itertools.product(retentions, exit_thresholds)
            settings += [Setting(name, r, place, exit_threshold=t) for r, t in pairs]
    return settings
