"""The result of a calibration, in words and in JSON."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vllm_sgl.commands.calibrate import choosing, risk
from vllm_sgl.commands.calibrate.choosing import Choice, Promise, Tested
from vllm_sgl.commands.calibrate.cost import Cost
from vllm_sgl.commands.calibrate.losses import Requests, Setting
from vllm_sgl.config import ExitScore

#: What a loss is, by whether the data has answers; of the metric's name.
LOST = "what the large model alone has right and the setting has not ({})"
DISAGREEMENT = "disagreement with the large model's own answer ({})"

#: Tests that a long table shows.
_FIRST, _LAST = 3, 8


@dataclass(frozen=True)
class Calibration:
    """A calibration that came to its end. loss: what one is, in words. alone: what each exit score would have
    given by itself, where there are several."""

    large: str
    small: str
    loss: str
    promise: Promise
    requests: Requests
    cost: Cost
    choice: Choice
    alone: Mapping[ExitScore, Choice] = field(default_factory=dict)

    def exits(self, setting: Setting) -> float:
        """Share of all requests that end with the small model's answer."""
        return float(self.requests.exits(setting).mean())

    def lost(self, setting: Setting) -> float:
        """The mean loss of all requests."""
        return float(self.requests.losses(setting).mean())

    def spent(self, setting: Setting) -> float:
        """Relative to the large model alone."""
        return self.cost.of(self.requests, setting)


def flags(setting: Setting) -> str:
    """The server's flags."""
    found = [f"--sgl-retention {setting.retention:g}"]
    found += [f"--sgl-policy {setting.policy}"] if setting.retention < 1 else []
    if setting.threshold is not None:
        found += [f"--sgl-exit-score {setting.score} --sgl-exit-threshold {setting.threshold:g}"]
    return " ".join(found)


def keys(setting: Setting) -> dict[str, Any]:
    """A request's or profile's keys, without their prefix."""
    found: dict[str, Any] = {"retention": setting.retention, "policy": setting.policy}
    if setting.threshold is None:
        return {**found, "exit_threshold": "off"}
    return {**found, "exit_score": setting.score, "exit_threshold": setting.threshold}


def serve_line(calibration: Calibration, setting: Setting) -> str:
    """To paste into a shell."""
    models = f"{shlex.quote(calibration.large)} --sgl-small {shlex.quote(calibration.small)}"
    return f"vllm serve {models} {flags(setting)}"


def too_few(count: int, promise: Promise, requests: int) -> str:
    """Why nothing can be promised, how many requests that takes, and what this many can promise at most.

    Args:
        count: of what is independent: images or conversations.
    """
    what = "requests"
    if count < requests:
        what = f"images or conversations (of {requests} requests: those that share one count once)"
    lines = [
        f"{count} {what} are too few to promise a loss of at most {_share(promise.max_loss)} with "
        f"{_share(promise.confidence)} confidence, even if none of them lost anything. That takes "
        f"{promise.fewest} at least ({promise.fewest_tests} that test, the others put settings in an order)."
    ]
    testing = count - choosing.ordering(count)
    if testing:
        level = 1 - promise.error ** (1 / testing)
        lines.append(
            f"With {count} no loss below {_share(level)} can be promised: give more requests, or --max-loss "
            f"{100 * level + 0.005:.2f}% or more."
        )
    return "\n".join(lines)


def summary(calibration: Calibration) -> str:
    """The tests as a table, then what is promised; where nothing is, why not, and what can be said."""
    promise, choice = calibration.promise, calibration.choice
    head = [
        f"{calibration.large}, guided by {calibration.small}: {len(calibration.requests)} requests",
        f"loss: {calibration.loss}; at most {_share(promise.max_loss)} with {_share(promise.confidence)} "
        "confidence",
        f"{choice.ordering} requests put the settings in this order, the other {choice.testing} test them:",
        *_grouped(calibration.requests),
        "",
        *_shortened(_table([_row(calibration, tested) for tested in choice.tests])),
        "",
    ]
    if choice.chosen is None:
        return "\n".join([*head, *_nothing(calibration)])
    chosen = choice.chosen
    tested = next(tested for tested in choice.tests if tested.setting == chosen)
    spent = calibration.spent(chosen)
    lines = [
        f"chosen: {chosen}. Lost {_share(tested.lost / tested.n)} of {tested.n} requests; promised: at most "
        f"{_share(promise.max_loss)}, with {_share(promise.confidence)} confidence.",
        f"{_share(calibration.exits(chosen))} of the requests exit; cost {spent:.2f} of the large model "
        f"alone ({calibration.cost.name}).",
    ]
    if spent >= 1:
        lines.append(
            "That is no gain: for this pair and these questions the large model alone costs less than any "
            "setting that passed."
        )
    lines += _alone(calibration)
    profile = json.dumps(keys(chosen))
    lines += [
        "",
        "  " + serve_line(calibration, chosen),
        f"  --sgl-profile calibrated={shlex.quote(profile)}",
    ]
    return "\n".join([*head, *lines])


def _alone(calibration: Calibration) -> list[str]:
    """What each exit score would have given, which is no choice: the best of several tests promises less."""
    rows = []
    for name, choice in calibration.alone.items():
        chosen = choice.chosen
        rows.append({
            "score": name,
            "it alone would give": "nothing" if chosen is None else str(chosen),
            "exits": "" if chosen is None else _share(calibration.exits(chosen)),
            "cost": "" if chosen is None else f"{calibration.spent(chosen):.3f}",
        })  # fmt: skip
    return ["", *_table(rows)] if rows else []


def _nothing(calibration: Calibration) -> list[str]:
    promise, choice = calibration.promise, calibration.choice
    if not choice.ordering:
        count = len(calibration.requests.group_sizes())
        return [
            f"Nothing can be promised: {count} images or conversations are too few to choose settings by; "
            f"expected requests about {choosing.FEWEST_GROUPS} at least."
        ]
    if not choice.tests:
        return ["Nothing can be promised: there is no setting to test; no request was guided."]
    first = choice.tests[0]
    lines = [
        f"No setting can be promised. The mildest one, {first.setting}, lost {_share(first.lost / first.n)} "
        f"of {first.n} requests, which says at most {_share(first.bound)} with "
        f"{_share(promise.confidence)} confidence."
    ]
    whole = calibration.requests.whole and first.groups == first.n
    needed = risk.enough(first.lost / first.n, promise.max_loss, promise.error, whole)
    if needed is None:
        lines.append(
            f"More requests would not help, unless these are unlike most: it loses too much. Try --max-loss "
            f"{100 * first.bound + 0.005:.2f}%, or milder settings."
        )
    else:
        what = "requests" if first.groups == first.n else "images or conversations"
        lines.append(
            f"If it goes on losing as much, about {choosing.total_of(needed)} {what} in all would do; so "
            f"would --max-loss {100 * first.bound + 0.005:.2f}%."
        )
    return lines


def _grouped(requests: Requests) -> list[str]:
    sizes = requests.group_sizes()
    if len(sizes) == len(requests):
        return []
    return [
        f"they are of {len(sizes)} images or conversations, {sizes.max()} of one at most, and each of these "
        "counts once: what is lost about one image is not independent"
    ]


def write(path: Path, calibration: Calibration, more: Mapping[str, Any]) -> None:
    """Every figure as JSON."""
    choice, promise = calibration.choice, calibration.promise
    values = {
        **more,
        "large": calibration.large,
        "small": calibration.small,
        "loss": calibration.loss,
        "max_loss": promise.max_loss,
        "confidence": promise.confidence,
        "requests": {
            "all": len(calibration.requests), "ordering": choice.ordering, "testing": choice.testing,
            "fewest": promise.fewest,
        },
        "cost": calibration.cost.name,
        "tests": [_figures(calibration, tested) for tested in choice.tests],
        "chosen": None if choice.chosen is None else keys(choice.chosen),
        "alone": {
            name: None if one.chosen is None else {
                **keys(one.chosen),
                "exits": calibration.exits(one.chosen),
                "cost": calibration.spent(one.chosen),
            }
            for name, one in calibration.alone.items()
        },
        "serve": None if choice.chosen is None else serve_line(calibration, choice.chosen),
    }  # fmt: skip
    path.write_text(json.dumps(values, indent=2) + "\n")


def write_requests(path: Path, calibration: Calibration, more: Mapping[str, Any]) -> None:
    """Write the loss of each request, without texts, to calibrate again without asking."""
    path.write_text(json.dumps({**more, "loss": calibration.loss, **calibration.requests.as_json()}) + "\n")


def _figures(calibration: Calibration, tested: Tested) -> dict[str, Any]:
    setting = tested.setting
    return {
        **keys(setting),
        **{name: value for name, value in asdict(tested).items() if name != "setting"},
        "lost_of_all": calibration.lost(setting),
        "exits": calibration.exits(setting),
        "cost": calibration.spent(setting),
    }


def _row(calibration: Calibration, tested: Tested) -> dict[str, str]:
    return {
        "setting": str(tested.setting),
        "lost": f"{tested.lost:g} of {tested.n}",
        "p-value": f"{tested.p_value:.4f}",
        "passed": "yes" if tested.passed else "no",
        "exits": _share(calibration.exits(tested.setting)),
        "cost": f"{calibration.spent(tested.setting):.3f}",
    }


def _table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    if not rows:
        return []
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]


def _shortened(table: list[str]) -> list[str]:
    """With the middle left out where it is long; the JSON has all of it."""
    most = 2 + _FIRST + _LAST
    left_out = f"  ... {len(table) - most} more, which passed ..."
    return table if len(table) <= most + 1 else [*table[: 2 + _FIRST], left_out, *table[-_LAST:]]


def _share(value: float) -> str:
    """In percent, one digit behind the point where it has one."""
    return f"{round(100 * value, 1):g} %"
