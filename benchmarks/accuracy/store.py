"""Answers on disk, one JSON object a line, so that a run that was cut off goes on where it stopped."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vllm_sgl.evaluate.answer_store import Lines

from .settings import Setting

_SETTING = tuple(Setting("").as_dict())


class Store:
    """``answers.jsonl``: what the run is on the first line, then one answer a line.

    Args:
        run: what every answer depends on; plain values.

    Raises:
        UsageError: where the file holds answers of another run, naming what differs.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self._lines = Lines(path, run)
        self._answers: dict[tuple[str, Setting], dict[str, Any]] = {}
        for record in self._lines.records:
            self._remember(record)

    def __contains__(self, key: tuple[str, Setting]) -> bool:
        """Whether (question's id, setting) is answered."""
        return key in self._answers

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        records = list(records)
        self._lines.add(records)
        for record in records:
            self._remember(dict(record))

    @property
    def settings(self) -> list[Setting]:
        """Every setting with an answer, in the order of their first answers."""
        return list(dict.fromkeys(setting for _, setting in self._answers))

    def answers(self, setting: Setting) -> dict[str, dict[str, Any]]:
        """Records of one setting by question."""
        return {id: record for (id, found), record in self._answers.items() if found == setting}

    def _remember(self, record: dict[str, Any]) -> None:
        setting = Setting(**{name: record[name] for name in _SETTING})
        self._answers[record["question"], setting] = record
