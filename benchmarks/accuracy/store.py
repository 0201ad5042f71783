"""Answers on disk, one JSON object a line, so that a run that was cut off goes on where it stopped."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import UsageError
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
        self._path = path
        self._answers: dict[tuple[str, Setting], dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = _complete_lines(path)
        if not lines:
            path.write_text(json.dumps({"run": run}) + "\n")
            return
        self._compare(json.loads(lines[0])["run"], json.loads(json.dumps(run)))
        for line in lines[1:]:
            self._remember(json.loads(line))

    def __contains__(self, key: tuple[str, Setting]) -> bool:
        """Whether (question's id, setting) is answered."""
        return key in self._answers

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        with self._path.open("a") as file:
            for record in records:
                file.write(json.dumps(record) + "\n")
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

    def _compare(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        different = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
        if different:
            changes = "; ".join(
                f"{name} was {found.get(name)!r}, is {wanted.get(name)!r}" for name in different
            )
            raise UsageError(
                f"{self._path} holds answers of another run: {changes}. Choose another --out, or delete it"
            )


def _complete_lines(path: Path) -> list[str]:
    """The file's lines; one that a killed run left half written is cut off."""
    if not path.exists():
        return []
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    return whole.splitlines()
