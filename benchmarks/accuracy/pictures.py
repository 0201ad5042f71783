"""The figures as pictures. matplotlib is needed: ``pip install 'vllm-sgl[plot]'``."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from benchmarks.plotting import save
from vllm_sgl.commands.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RC, RED, SKY, YELLOW

from .exits import ExitPoint
from .metrics import Estimate
from .summary import Row, Summary

#: Colour and marker per method.
_STYLES = {
    "sgp": (BLUE, "o"),
    "oracle": (GREEN, "^"),
    "box": (BLACK, "D"),
    "cdpruner": (PINK, "P"),
    "dpp": (PINK, "*"),
    "divprune": (SKY, "p"),
    "fastv": (RED, "s"),
    "tome": (YELLOW, "h"),
    "downsample": (ORANGE, "v"),
    "random": (GREY, "x"),
    "frames": (GREY, "+"),
}
_NAMES = {
    "sgp": "SGP (small model's attention)",
    "oracle": "oracle (large model's own attention)",
    "box": "answer's place known",
    "cdpruner": "CDPruner (diverse, by question)",
    "dpp": "CDPruner without the question",
    "divprune": "DivPrune (diverse)",
    "fastv": "FastV ranking",
    "tome": "ToMe (merged in the encoder)",
    "downsample": "image downsampled",
    "random": "random pruning",
    "frames": "random frames",
}
_CYCLE = (BLUE, RED, GREEN, ORANGE, PINK, SKY, BLACK, GREY)
_METRIC_NAMES = {"exact": "exact match", "vqa": "VQA accuracy", "anls": "ANLS"}


def draw(summary: Summary, folder: Path, title: str) -> list[Path]:
    """Write every picture that there is data for; their paths."""
    written = []
    with plt.rc_context(RC):
        for name, make in (("accuracy", _methods), ("variants", _variants), ("exits", _exits)):
            if (figure := make(summary)) is not None:
                written.append(save(figure, folder / f"{name}.png", title))
    return written


def _methods(summary: Summary) -> Figure | None:
    """Accuracy over retention, a line per method."""
    rows = [row for row in _without_exits(summary) if not _is_variant(row)]
    lines = {
        name: _Line(found, *_STYLES[method])
        for method, name in _NAMES.items()
        if (found := _only(rows, method))
    }
    return _over_retention(summary, lines) if lines else None


def _variants(summary: Summary) -> Figure | None:
    """SGP by positions and by query rows, where other ones than the defaults were asked for."""
    rows = _only(_without_exits(summary), "sgp")
    if not any(map(_is_variant, rows)):
        return None
    names = dict.fromkeys(_variant_name(row) for row in rows)
    looks = zip(itertools.cycle(_CYCLE), itertools.cycle("os^vDxP"), strict=True)
    lines = {
        name: _Line([row for row in rows if _variant_name(row) == name], *look)
        for name, look in zip(names, looks, strict=False)
    }
    return _over_retention(summary, lines)


@dataclass(frozen=True)
class _Line:
    rows: list[Row]
    colour: str
    marker: str


def _over_retention(summary: Summary, lines: Mapping[str, _Line]) -> Figure:
    """All questions on the left, on the right those that the small model gets wrong. Every line ends at the
    large model with all visual tokens."""
    figure, axes = plt.subplots(1, 2, figsize=(11.5, 5.2), layout="constrained")
    metric, name = summary.metric, _METRIC_NAMES[summary.metric]
    full = _only(summary.rows, "full")
    for axis, which in zip(axes, ("accuracy", "small_wrong"), strict=True):
        for label, line in lines.items():
            _draw_line(axis, label, line, full, metric, which)
        _level(axis, _only(summary.rows, "blind"), metric, which, "one visual token", ":")
    small = _only(summary.rows, "small")
    _level(axes[0], small, metric, "accuracy", "small model alone", "--")
    axes[0].set_ylabel(f"{name}, all {max(row.n for row in summary.rows)} questions")
    wrong = small[0].small_wrong[metric].n if small else 0
    axes[1].set_ylabel(f"{name}, the {wrong} that the small model gets wrong")
    ticks = sorted({row.setting.retention for line in lines.values() for row in line.rows} | {1.0})
    for axis in axes:
        axis.yaxis.set_major_formatter(PercentFormatter(1))
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(FixedLocator(ticks))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.set_xlabel("visual tokens that the large model is given (log scale)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    return figure


def _draw_line(axis: Axes, label: str, line: _Line, full: Sequence[Row], metric: str, which: str) -> None:
    points = [(row.share, getattr(row, which)[metric]) for row in (*full, *line.rows)]
    points = sorted(((share, e) for share, e in points if e.n), key=lambda point: point[0])
    if not points:
        return
    shares, found = zip(*points, strict=True)
    errors = [[e.value - e.low for e in found], [e.high - e.value for e in found]]
    axis.errorbar(
        shares, [e.value for e in found], yerr=errors, label=label, color=line.colour, marker=line.marker,
        markersize=5, linewidth=1.8, elinewidth=0.7, capsize=0, zorder=4 if label == _NAMES["sgp"] else 3,
    )  # fmt: skip


def _level(axis: Axes, rows: Sequence[Row], metric: str, which: str, name: str, style: str) -> None:
    for row in rows:
        estimate: Estimate = getattr(row, which)[metric]
        if estimate.n:
            axis.axhline(estimate.value, color="#555555", linestyle=style, linewidth=1.4, label=name)


def _exits(summary: Summary) -> Figure | None:
    """Accuracy over cost, and over the threshold that gives it; what the threshold lets out."""
    if not summary.curves:
        return None
    figure, (by_cost, by_threshold, calibration) = plt.subplots(1, 3, figsize=(14, 4.8), layout="constrained")
    for number, (retention, curve) in enumerate(sorted(summary.curves.items(), reverse=True)):
        colour, name = _CYCLE[number % len(_CYCLE)], f"{retention:.0%} of visual tokens"
        if curve[0].cost is not None:
            by_cost.plot([p.cost for p in curve], [p.accuracy for p in curve], color=colour, label=name)
            by_cost.plot(curve[0].cost, curve[0].accuracy, "o", color=colour, markersize=5)
        thresholds = [p.threshold for p in curve[1:]]
        by_threshold.plot(thresholds, [p.accuracy for p in curve[1:]], color=colour, label=name)
    _mark(by_cost, _only(summary.rows, "full"), summary.metric, "large alone", "*")
    _mark(by_cost, _only(summary.rows, "small"), summary.metric, "small alone", "D")
    for axis in (by_cost, by_threshold):
        axis.set_ylabel(_METRIC_NAMES[summary.metric])
        axis.yaxis.set_major_formatter(PercentFormatter(1))
    by_cost.set(
        xlabel="FLOPs relative to the large model alone",
        title="Accuracy over cost, exits from none (●) to all",
    )
    by_cost.set_xlim(left=0)
    if by_cost.has_data():
        by_cost.legend(fontsize=8.5)
    by_threshold.set(xlabel="exit threshold", title="Accuracy of all answers")
    _draw_calibration(calibration, next(iter(summary.curves.values())), summary)
    return figure


def _draw_calibration(axis: Axes, curve: Sequence[ExitPoint], summary: Summary) -> None:
    points = curve[1:]
    thresholds = [point.threshold for point in points]
    axis.plot(thresholds, [p.share for p in points], color=BLUE, label="questions that exit")
    axis.plot(thresholds, [p.exited_accuracy for p in points], color=GREEN, label="exits that are right")
    wrong = [p.share_small_wrong for p in points]
    if None not in wrong:
        axis.plot(thresholds, wrong, color=RED, label="wrong answers that exit")
    auc = summary.exit_score.value
    axis.set(xlabel="exit threshold", ylim=(-0.02, 1.02))
    axis.set_title("What exits" if auc is None else f"What exits (AUC of the score {auc:.3f})")
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.legend(fontsize=8.5)


def _mark(axis: Axes, rows: Sequence[Row], metric: str, name: str, marker: str) -> None:
    for row in rows:
        if row.cost is not None:
            axis.plot(
                row.cost,
                row.accuracy[metric].value,
                marker,
                color="black",
                markersize=9,
                label=name,
                zorder=5,
            )


def _without_exits(summary: Summary) -> list[Row]:
    return [row for row in summary.rows if row.setting.exit_threshold is None]


def _only(rows: Sequence[Row], method: str) -> list[Row]:
    return [row for row in rows if row.setting.method == method]


def _is_variant(row: Row) -> bool:
    return row.setting.positions == "packed" or row.setting.query_rows is not None


def _variant_name(row: Row) -> str:
    rows = f"query rows: {row.setting.query_rows or 'default'}"
    return f"{rows}, packed positions" if row.setting.positions == "packed" else rows
