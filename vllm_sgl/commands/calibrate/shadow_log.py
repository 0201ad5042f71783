"""Reading what a shadow server logged: :mod:`vllm_sgl.telemetry.request_log` writes it.

A shadow shows both models' own answers, so it shows what exits would lose; it never runs the large model on
pruned prompts, so it says nothing about pruning.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vllm_sgl.commands.calibrate.losses import Array, Pruned, Requests, groups
from vllm_sgl.config import ExitScore
from vllm_sgl.decide.scores.registry import SCORES
from vllm_sgl.evaluate.errors import UsageError

_NEEDED = ("decision", "exit_threshold", "score", "agrees", "visual_tokens", "prompt_tokens", "tiles")


@dataclass(frozen=True)
class Log:
    """lowest: the threshold from which on every request that would exit has a score."""

    requests: Requests
    lowest: float


def read(paths: Sequence[Path]) -> Log:
    """All lines of all files that were answered to their end.

    Raises:
        UsageError: naming file and line, what was expected and what came.
    """
    lines = [line for path in paths for line in _lines(path)]
    if not lines:
        raise UsageError(f"--log {', '.join(map(str, paths))}: no requests; expected one JSON object a line")
    guided = [line["decision"] != "bypass" for line in lines]
    thresholds = [line["exit_threshold"] for line, used in zip(lines, guided, strict=True) if used]
    if any(one is None for one in thresholds):
        raise UsageError(
            "--log: there are guided requests without exit_threshold, so without a score; start the shadow "
            "server with --sgl-exit-threshold 0 to score every request"
        )
    lowest = max(thresholds, default=0.0)
    visual, tiles = _column(lines, "visual_tokens"), _column(lines, "tiles")
    none = np.zeros(len(lines))
    requests = Requests(
        prompt_tokens=_column(lines, "prompt_tokens"),
        visual_tokens=visual,
        tiles=tiles,
        guided=np.array(guided, dtype=np.float64),
        scores=_scores(lines, lowest),
        small_tokens=none,
        small_loss=np.array([0.0 if line["agrees"] is not False else 1.0 for line in lines]),
        whole=True,
        pruned={("top", 1.0): Pruned(none, visual, tiles)},
        # Turns of a conversation have their images in common. Logs of earlier releases do not name them.
        group=np.array(groups([line.get("images") or () for line in lines]), dtype=np.float64),
    )
    return Log(requests, lowest)


def _scores(lines: Sequence[Mapping[str, Any]], lowest: float) -> dict[ExitScore, Array]:
    """Every exit score that all lines have. From a threshold above 0 on that is the server's own: others do
    not follow its order, so some of what they would let exit was not scored.

    Raises:
        UsageError: where the lines have no score in common.
    """
    scored = [line for line in lines if line["score"] is not None]
    own = [line.get("exit_score", "paper") for line in scored]  # earlier releases had one
    values = [
        {**(line.get("scores") or {} if lowest == 0 else {}), name: line["score"]}
        for line, name in zip(scored, own, strict=True)
    ]
    names = [name for name in SCORES if all(name in one for one in values)]
    if not names:
        raise UsageError(
            f"--log: expected one exit score in all lines, received {', '.join(sorted(set(own)))}; start the "
            "shadow server with --sgl-exit-threshold 0, which logs every score, or read one log at a time"
        )
    rows = iter(values)
    found = [next(rows) if line["score"] is not None else {} for line in lines]
    # One whose answer cannot be compared, as one of several, could not exit either.
    can = [line["agrees"] is not None for line in lines]
    return {
        name: np.array(
            [one.get(name, np.nan) if may else np.nan for one, may in zip(found, can, strict=True)]
        )
        for name in names
    }


def _column(lines: Sequence[Mapping[str, Any]], name: str) -> Any:
    return np.array([line[name] for line in lines], dtype=np.float64)


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--log {path}: cannot be read ({error}); expected a --sgl-shadow-log file"
        ) from None
    found = []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            line = None
        missing = [name for name in _NEEDED if name not in line] if isinstance(line, dict) else _NEEDED
        if missing or not isinstance(line, dict):
            raise UsageError(
                f"--log {path}:{number}: expected a line of --sgl-shadow-log, with {', '.join(missing)}; "
                f"received {text[:60]!r}"
            )
        if line.get("finish_reason") in ("stop", "length"):  # the others have no answer to agree with
            found.append(line)
    return found
