"""The performance-efficiency curve: accuracy over measured seconds per question."""

import itertools
from collections.abc import Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from vllm_sgl.commands.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY

from .curve import CurvePoint
from .settings import Setting

_ALONE = {"plain": (BLACK, "*", "plain vLLM"), "small": (BLACK, "D", "small model alone")}
_CONTROLS = {"random": (GREY, "x", "random tokens"), "downsampled": (ORANGE, "v", "image downsampled")}
_SGL = ((BLUE, "o"), (RED, "s"), (GREEN, "^"), (PINK, "P"), (SKY, "p"))


def draw_curve(found: Sequence[CurvePoint]) -> Figure:
    """A panel with one client and one with the most; a line joins the retentions of what else is alike."""
    clients = sorted({point.clients for point in found})
    shown = list(dict.fromkeys((clients[0], clients[-1])))
    figure, axes = plt.subplots(
        1, len(shown), figsize=(5.8 * len(shown), 5), layout="constrained", sharey=True, squeeze=False
    )
    for axis, count in zip(axes[0], shown, strict=True):
        _panel(axis, [point for point in found if point.clients == count])
        axis.set_title(f"{count} client{'s' if count > 1 else ''}")
        axis.set_xlabel("seconds per question (1 / requests per second)")
        axis.set_xlim(left=0)
        axis.yaxis.set_major_formatter(PercentFormatter(1))
    axes[0][0].set_ylabel(f"exact match, {max(point.accuracy.n for point in found)} questions")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _panel(axis: Axes, here: Sequence[CurvePoint]) -> None:
    sgl = itertools.cycle(_SGL)
    lines: dict[str, tuple[str, str, list[CurvePoint]]] = {}
    for point in here:
        method = point.setting.method
        if method == "default":
            continue
        name = _name(point.setting)
        if name not in lines:
            colour, marker = next(sgl) if method == "sgl" else (_ALONE | _CONTROLS)[method][:2]
            lines[name] = (colour, marker, [])
        lines[name][2].append(point)
    for name, (colour, marker, points) in lines.items():
        points.sort(key=lambda point: point.setting.retention)
        value = [point.accuracy.value for point in points]
        low = [point.accuracy.value - point.accuracy.low for point in points]
        high = [point.accuracy.high - point.accuracy.value for point in points]
        axis.errorbar(
            [point.seconds for point in points], value, yerr=[low, high], label=name, color=colour,
            marker=marker, markersize=9 if len(points) == 1 else 6, linewidth=1.6, elinewidth=0.6,
        )  # fmt: skip
        for point in points if len(points) > 1 else ():
            place = point.seconds, point.accuracy.value
            axis.annotate(
                f"{point.setting.retention:.0%}", place, xytext=(4, -11), textcoords="offset points",
                fontsize=7, color=colour,
            )  # fmt: skip


def _name(setting: Setting) -> str:
    if setting.method != "sgl":
        return (_ALONE | _CONTROLS)[setting.method][2]
    exits = "" if not setting.exits else f", exits from {setting.threshold:g}"
    # Where everything is kept, all policies are one: that point ends the first one's line.
    return f"SGL{exits}" + ("" if setting.policy is None else f", {setting.policy}")
