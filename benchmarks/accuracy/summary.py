"""From stored answers to figures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from vllm_sgl.evaluate.metrics import METRICS
from vllm_sgl.evaluate.questions import Question

from . import exits, metrics
from .cost import PairCost
from .exits import ExitPoint
from .metrics import RIGHT, Estimate
from .settings import Setting
from .store import Store

FULL, SMALL = Setting("full"), Setting("small")


@dataclass(frozen=True)
class Row:
    """One setting. share: mean share of visual tokens that the large model's decoder is given. encoded: mean
    share of tiles that its vision encoder is, None where answers do not say it. cost: FLOPs relative to
    ``full``, None where it is unknown or the method is no real one. accuracy, small_wrong: by
    name of the metric, over all questions and over those that the small model gets wrong. kinds: the chosen
    metric by the question's kind."""

    setting: Setting
    n: int
    visual_tokens: float
    share: float
    encoded: float | None
    cost: float | None
    accuracy: dict[str, Estimate]
    small_wrong: dict[str, Estimate]
    kinds: dict[str, Estimate]


@dataclass(frozen=True)
class ExitCheck:
    """An exit threshold asked of the real path, beside what the answers at hand foretold."""

    retention: float
    positions: str | None
    threshold: float
    n: int
    share: float
    expected_share: float
    accuracy: float
    expected_accuracy: float


@dataclass(frozen=True)
class Summary:
    """metric: the chosen one. exit_score: AUC of the small model's score (right over wrong answers).
    curves: exits at every threshold, by retention."""

    metric: str
    rows: list[Row]
    exit_score: Estimate | None = None
    curves: dict[float, list[ExitPoint]] = field(default_factory=dict)
    checks: list[ExitCheck] = field(default_factory=list)


def summarise(store: Store, questions: Sequence[Question], metric: str, cost: PairCost) -> Summary:
    """Everything that the store holds about these questions."""
    return _Summariser(store, questions, metric, cost).run()


class _Summariser:
    def __init__(self, store: Store, questions: Sequence[Question], metric: str, cost: PairCost) -> None:
        self._questions = {question.id: question for question in questions}
        self._store, self._metric, self._cost = store, metric, cost
        self._full, self._small = self._answers(FULL), self._answers(SMALL)
        self._wrong = {id for id, record in self._small.items() if self._worth(record) < RIGHT}

    def run(self) -> Summary:
        rows = [self._row(setting) for setting in self._store.settings if self._answers(setting)]
        if not self._small:
            return Summary(self._metric, rows)
        scores = [record["score"] for record in self._small.values()]
        right = [id not in self._wrong for id in self._small]
        return Summary(
            self._metric, rows, metrics.auc(scores, right), self._curves(), list(filter(None, self._checks()))
        )

    def _answers(self, setting: Setting) -> dict[str, dict[str, Any]]:
        records = self._store.answers(setting)
        return {id: record for id, record in records.items() if id in self._questions}

    def _worth(self, record: dict[str, Any], metric: str | None = None) -> float:
        answers = self._questions[record["question"]].answers
        return METRICS[metric or self._metric](record["answer"], answers)

    def _row(self, setting: Setting) -> Row:
        records = self._answers(setting)
        kinds = sorted({self._questions[id].kind for id in records} - {None})
        by_metric = {name: {id: self._worth(r, name) for id, r in records.items()} for name in METRICS}
        chosen = by_metric[self._metric]
        return Row(
            setting=setting,
            n=len(records),
            visual_tokens=_mean(record["kept_tokens"] for record in records.values()),
            share=_mean(record["share"] for record in records.values()),
            encoded=_encoded(records.values()),
            cost=self._relative_cost(setting, records),
            accuracy={name: metrics.mean(list(worth.values())) for name, worth in by_metric.items()},
            small_wrong={
                name: metrics.mean([value for id, value in worth.items() if id in self._wrong])
                for name, worth in by_metric.items()
            },
            kinds={
                kind: metrics.mean([v for id, v in chosen.items() if self._questions[id].kind == kind])
                for kind in kinds
            },
        )

    def _relative_cost(self, setting: Setting, records: dict[str, dict[str, Any]]) -> float | None:
        method = setting.method
        needed = [self._full, self._small] if method == "sgp" else [self._full]
        if setting.exit_threshold is not None or any(records.keys() - known for known in needed):
            return None
        own = 0.0
        if method not in ("full", "small", "sgp", "random", "frames", "downsample", "blind"):
            spent = [self._cost.baseline(method, record) for record in records.values()]
            if None in spent:  # the method is no real one
                return None
            own = sum(spent)
        large = 0.0 if method == "small" else sum(map(self._cost.large_answer, records.values()))
        guides = [self._small[id] for id in records] if method in ("sgp", "small") else []
        plain = sum(self._cost.large_answer(self._full[id]) for id in records)
        return (own + large + sum(map(self._cost.guide, guides))) / plain

    def _curves(self) -> dict[float, list[ExitPoint]]:
        """Of the default query rows (the small model's score depends on them) and first positions."""
        curves: dict[float, list[ExitPoint]] = {}
        pruned = [setting for setting in self._store.settings if _plain_sgp(setting)]
        for retention, records in [(1.0, self._full), *((s.retention, self._answers(s)) for s in pruned)]:
            if retention not in curves and self._small.keys() & records.keys():
                curves[retention] = exits.curve(self._exit_questions(records))
        return curves

    def _checks(self) -> list[ExitCheck | None]:
        return [self._check(s) for s in self._store.settings if s.exit_threshold is not None]

    def _check(self, asked: Setting) -> ExitCheck | None:
        records = self._answers(asked)
        without = FULL if asked.retention == 1 else Setting("sgp", asked.retention, asked.positions)
        pruned = {id: record for id, record in self._answers(without).items() if id in records}
        ids = self._small.keys() & pruned.keys()
        if not ids:
            return None
        expected = exits.at(self._exit_questions(pruned), asked.exit_threshold)
        found = [records[id] for id in ids]
        return ExitCheck(
            retention=asked.retention,
            positions=asked.positions,
            threshold=asked.exit_threshold,
            n=len(ids),
            share=_mean(record["exited"] for record in found),
            expected_share=expected.share,
            accuracy=_mean(map(self._worth, found)),
            expected_accuracy=expected.accuracy,
        )

    def _exit_questions(self, pruned: dict[str, dict[str, Any]]) -> exits.Questions:
        ids = [id for id in self._small if id in pruned]
        worth = {id: (self._worth(self._small[id]), self._worth(pruned[id])) for id in ids}
        return exits.Questions.of(ids, self._small, pruned, self._full, worth, self._cost)


def _plain_sgp(setting: Setting) -> bool:
    return setting.method == "sgp" and setting.query_rows is None and setting.exit_threshold is None


def _encoded(records: Iterable[dict[str, Any]]) -> float | None:
    told = [record for record in records if record.get("encoded_tiles") is not None]
    return _mean(record["encoded_tiles"] / record["tiles"] for record in told) if told else None


def _mean(values: Any) -> float:
    values = list(values)
    return sum(values) / len(values)
