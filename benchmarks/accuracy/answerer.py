"""Answers what is not answered yet."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tools.internvl_reference.tiling import Tiling
from vllm_sgl.evaluate.backends import Backend, Endpoint, Engines
from vllm_sgl.evaluate.questions import Question

from .asking import Ask
from .ranking_guide import RankingGuide
from .rankings import Rankings
from .settings import METHODS, Setting
from .store import Store


class Answerer:
    """Answers settings, and starts a backend only for what is missing."""

    def __init__(
        self, options: argparse.Namespace, questions: list[Question], tiling: Tiling, store: Store
    ) -> None:
        self._options, self._questions, self._tiling, self._store = options, questions, tiling, store
        self._rankings = Rankings(
            questions,
            Path(options.large),
            tiling,
            options.out / "rankings.jsonl",
            options.max_tokens,
            options.seed,
        )

    def answer(self, wanted: Sequence[Setting]) -> None:
        missing = {setting: asks for setting in wanted if (asks := self._missing(setting))}
        total = sum(map(len, missing.values()))
        with tqdm(total=total, unit="answer", disable=not total) as bar:
            # A setting without positions of its own is answered by whichever engine runs first.
            placed = list(dict.fromkeys(setting.positions for setting in missing if setting.positions))
            for positions in placed or [None] * bool(missing):
                here = [s for s in missing if s.positions in (positions, None)]
                self._answer_here({setting: missing.pop(setting) for setting in here}, positions, bar)

    def _missing(self, setting: Setting) -> list[Ask]:
        asked = (q for q in self._questions if METHODS[setting.method].asks(q))
        return [
            Ask(question, setting, self._tiling, self._options.max_tokens)
            for question in asked
            if (question.id, setting) not in self._store
        ]

    def _answer_here(self, missing: dict[Setting, list[Ask]], positions: str | None, bar: tqdm) -> None:
        backend = self._backend(positions)
        try:
            for setting, asks in missing.items():
                bar.set_description(setting.label)
                for begin in range(0, len(asks), self._options.concurrency):
                    batch = asks[begin : begin + self._options.concurrency]
                    replies = backend.answer(batch)
                    self._store.add(ask.record(reply) for ask, reply in zip(batch, replies, strict=True))
                    bar.update(len(batch))
        finally:
            backend.close()

    def _backend(self, positions: str | None) -> Backend:
        options = self._options
        if options.base_url:
            return Endpoint(options.base_url, options.large)
        arguments = {"trust_remote_code": options.trust_remote_code, **options.large_args}
        if options.small_args:
            arguments["sgl_small_args"] = options.small_args
        if positions is not None:
            arguments["sgl_positions"] = positions

        def wrap(guide: Any) -> RankingGuide:
            return RankingGuide(guide, self._rankings)

        return Engines(options.large, options.small, wrap, arguments)
