"""Asks the questions that have no stored answer yet."""

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vllm_sgl.commands.calibrate.ways import Asked, Way
from vllm_sgl.decide.costs import Costs
from vllm_sgl.evaluate.answer_store import Lines
from vllm_sgl.evaluate.backends import Backend, Endpoint, Engines
from vllm_sgl.evaluate.questions import Question

#: Of the arguments of ``vllm_sgl.LLM``: with this policy both models' costs are measured at start, the large
#: one's vision encoder among them. Every request names its own.
MEASURING = {"sgl_policy": "auto"}


class Asker:
    """Asks questions in ways, and starts a backend only for what is missing.

    Args:
        folder: keeps ``answers.jsonl`` and ``costs.json``.
        run: what every answer depends on.
        start: gives the backend.

    Raises:
        UsageError: where the folder holds answers of another run.
    """

    def __init__(self, folder: Path, run: dict[str, Any], start: Callable[[], Backend]) -> None:
        self._lines = Lines(folder / "answers.jsonl", run)
        self._costs = folder / "costs.json"
        self._start = start

    @property
    def records(self) -> list[dict[str, Any]]:
        """Everything that is answered."""
        return self._lines.records

    @property
    def costs(self) -> Costs | None:
        """What both models' passes took when they were started; None if they were not measured."""
        if not self._costs.exists():
            return None
        found = json.loads(self._costs.read_text())
        pairs = tuple((int(tokens), float(seconds)) for tokens, seconds in found["prefill"])
        seen = tuple((int(large), int(guide)) for large, guide in found.get("seen", ()))
        return Costs(tuple(found["guide"]), found["decode"], pairs, found["vision"], seen)

    def ask(
        self, questions: Sequence[Question], ways: Sequence[Way], max_tokens: int, concurrency: int
    ) -> None:
        """All ways of a question follow one another: its image is in every cache then.

        Raises:
            UsageError: where a reply came another way than it was asked for; what came before it is kept.
        """
        done = {(record["question"], record["way"]) for record in self.records}
        wanted = [(q, way) for q in questions for way in ways]
        missing = [(q, way) for q, way in wanted if (q.id, way.name) not in done]
        if not missing:
            return
        with closing(self._start()) as backend, tqdm(
            total=len(wanted), initial=len(wanted) - len(missing), unit="answer", desc="asking"
        ) as bar:  # fmt: skip
            in_process = isinstance(backend, Engines)
            for begin in range(0, len(missing), concurrency):
                batch = [
                    Asked(q, way, max_tokens, in_process) for q, way in missing[begin : begin + concurrency]
                ]
                replies = backend.answer(batch)
                self._lines.add(one.record(reply) for one, reply in zip(batch, replies, strict=True))
                bar.update(len(batch))
                if isinstance(backend, Engines):
                    self._keep(backend.costs)

    def _keep(self, costs: Costs | None) -> None:
        if costs is not None and not self._costs.exists():
            self._costs.write_text(json.dumps(asdict(costs)) + "\n")


def engines(large: str, small: str, arguments: dict[str, Any]) -> Engines:
    """Both engines in this process; each question is looked at once."""

    def once(guide: Any) -> Any:
        from vllm_sgl.evaluate.one_look import OneLook

        return OneLook(guide)

    return Engines(large, small, once, {**MEASURING, **arguments})


def endpoint(base_url: str, model: str | None) -> Endpoint:
    """A running server.

    Raises:
        UsageError: where it is none, or its answers would not be those of SGL.
    """
    found = Endpoint(base_url, model)
    found.refuse_other_than_guided()
    return found
