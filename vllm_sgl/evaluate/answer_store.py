"""Records on disk, one JSON object a line, so that a run that was cut off goes on where it stopped."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vllm_sgl.evaluate.errors import UsageError


class Lines:
    """A file with what the run is on its first line, then one record a line.

    records: all of them, in the order in which they came.

    Args:
        run: what every record depends on; plain values.

    Raises:
        UsageError: where the file holds records of another run, naming what differs.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self._path = path
        self.records: list[dict[str, Any]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = _complete_lines(path)
        if not lines:
            path.write_text(json.dumps({"run": run}) + "\n")
            return
        self._compare(json.loads(lines[0])["run"], json.loads(json.dumps(run)))
        self.records = [json.loads(line) for line in lines[1:]]

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append, and remember."""
        with self._path.open("a") as file:
            for record in records:
                file.write(json.dumps(record) + "\n")
                self.records.append(dict(record))

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
