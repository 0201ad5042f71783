"""What is figured of answers: seconds, and plain vLLM's seconds over a setting's."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, geometric_mean, median
from typing import Any

from .client import Answer, Sent
from .settings import PLAIN

#: The row of a case as a whole, beside those of its parts.
WHOLE = "all of it"
#: Tokens of an answer whose pace is told: more than a code.
_LONG = 8


@dataclass(frozen=True)
class Run:
    """A case of a shape as one setting answered it. whole: whether its seconds say something."""

    shape: str
    group: str
    case: int
    setting: str
    whole: bool
    sent: Sent


@dataclass(frozen=True)
class Figure:
    """of: answers -> seconds, None where they do not say. paired: whether ratios are taken case by case; a
    high percentile is taken of all answers together."""

    of: Callable[[Sequence[Answer]], float | None]
    paired: bool = True


def percentile(values: Iterable[float], share: float) -> float | None:
    """The smallest value that at least this share of the values does not exceed; None of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return median(found) if found else None


def _gaps(answers: Iterable[Answer]) -> list[float]:
    """Between chunks of answers that are more than a code."""
    return [gap for answer in answers if answer.tokens >= _LONG for gap in answer.gaps]


def _per_token(answers: Iterable[Answer]) -> list[float]:
    """Of each such answer, the seconds from first to last token by its number of tokens: a chunk may hold
    several, and several chunks may arrive at once."""
    return [
        (answer.arrivals[-1] - answer.arrivals[0]) / (answer.tokens - 1)
        for answer in answers
        if answer.tokens >= _LONG and answer.arrivals
    ]


FIGURES = {
    "first token": Figure(lambda found: _median(one.first_token for one in found)),
    "first token, p99": Figure(lambda found: percentile((one.first_token for one in found), 0.99), False),
    "answer": Figure(lambda found: _median(one.seconds for one in found)),
    "answer, p99": Figure(lambda found: percentile((one.seconds for one in found), 0.99), False),
    "per token": Figure(lambda found: _median(_per_token(found))),
    "between tokens, p99": Figure(lambda found: percentile(_gaps(found), 0.99), False),
}


def rows(runs: Sequence[Run], goal: float) -> list[dict[str, Any]]:
    """One per shape, group, part and setting, in the order of measurement.

    `ratios` are plain vLLM's seconds over the setting's: above 1 is faster. Of a median, and of whole cases,
    the geometric mean over cases, with the lowest and the highest.

    Args:
        goal: seconds; `within goal` is the share of answers that took no longer.
    """
    by_row: dict[tuple[str, str, str, str], list[tuple[int, list[Answer]]]] = defaultdict(list)
    wholes: dict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
    for run in runs:
        parts: dict[str, list[Answer]] = defaultdict(list)
        for answer in run.sent.answers:
            parts[answer.part].append(answer)
        for part, answers in parts.items():
            by_row[run.shape, run.group, part, run.setting].append((run.case, answers))
        if run.whole:
            wholes[run.shape, run.group, run.setting][run.case] = run.sent.seconds
    found = []
    for (shape, group, part, setting), cases in by_row.items():
        plain = by_row[shape, group, part, PLAIN.name]
        found.append(_row(shape, group, part, setting, cases, plain, goal))
    for (shape, group, setting), seconds in wholes.items():
        plain_seconds = wholes[shape, group, PLAIN.name]
        ratios = [plain_seconds[case] / own for case, own in seconds.items() if case in plain_seconds]
        found.append({
            "shape": shape, "group": group, "part": WHOLE, "setting": setting, "cases": len(seconds),
            "seconds": {"whole": median(seconds.values())},
            "ratios": {"whole": _ratio(ratios)},
        })  # fmt: skip
    return found


def _row(
    shape: str,
    group: str,
    part: str,
    setting: str,
    cases: Sequence[tuple[int, list[Answer]]],
    plain: Sequence[tuple[int, list[Answer]]],
    goal: float,
) -> dict[str, Any]:
    own, other = ([answer for _, answers in side for answer in answers] for side in (cases, plain))
    by_case = dict(plain)
    ratios = {}
    for name, figure in FIGURES.items():
        pairs = (
            [(by_case.get(case, []), answers) for case, answers in cases] if figure.paired else [(other, own)]
        )
        values = [(figure.of(theirs), figure.of(ours)) for theirs, ours in pairs]
        ratios[name] = _ratio([theirs / ours for theirs, ours in values if theirs and ours])
    known = [answer.right for answer in own if answer.right is not None]
    reports = [answer.sgl for answer in own if answer.sgl]
    guide = [report["guide_seconds"] for report in reports if report.get("guide_seconds")]
    prompt = sum(answer.prompt_tokens for answer in own)
    return {
        "shape": shape, "group": group, "part": part, "setting": setting, "cases": len(cases),
        "requests": len(own),
        "seconds": {name: figure.of(own) for name, figure in FIGURES.items()},
        "ratios": ratios,
        "within goal": fmean(answer.seconds <= goal for answer in own),
        "right": fmean(known) if known else None,
        "prompt_tokens": prompt / len(own),
        "cached_share": sum(answer.cached_tokens for answer in own) / prompt if prompt else None,
        "answer_tokens": fmean(answer.tokens for answer in own),
        "guide_seconds": median(guide) if guide else None,
        "decisions": dict(Counter(_decision(report) for report in reports)),
    }  # fmt: skip


def _ratio(ratios: Sequence[float]) -> dict[str, float] | None:
    if not ratios:
        return None
    return {"value": geometric_mean(ratios), "low": min(ratios), "high": max(ratios)}


def _decision(report: dict[str, Any]) -> str:
    reason = report.get("reason")
    return f"{report['decision']}: {reason}" if reason else str(report["decision"])
