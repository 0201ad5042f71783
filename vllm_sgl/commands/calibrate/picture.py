"""The picture: loss and exits over the threshold, cost over retention, and the tests. matplotlib is needed:
``pip install 'vllm-sgl[plot]'``.
"""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from vllm_sgl.commands.calibrate.losses import Setting
from vllm_sgl.commands.calibrate.report import Calibration
from vllm_sgl.commands.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RC, RED, SKY

_COLOURS = (BLUE, RED, GREEN, ORANGE, PINK, SKY, BLACK)


def draw(calibration: Calibration, path: Path) -> None:
    """Write it."""
    with plt.rc_context(RC):
        figure, (by_threshold, by_retention, tests) = plt.subplots(
            1, 3, figsize=(15, 4.8), layout="constrained"
        )
        _over_threshold(by_threshold, calibration)
        _over_retention(by_retention, calibration)
        _tests(tests, calibration)
        chosen = calibration.choice.chosen
        said = "nothing can be promised" if chosen is None else f"chosen: {chosen}"
        promise = calibration.promise
        title = (
            f"{Path(calibration.large).name}, guided by {Path(calibration.small).name}: {said}"
            f" (loss at most {promise.max_loss:.3g}, confidence {promise.confidence:.3g})"
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        figure.savefig(path)
        plt.close(figure)


def _over_threshold(axis: Axes, calibration: Calibration) -> None:
    """Loss of all requests, one line per retention, under the chosen policy or the first; and what exits."""
    requests, chosen = calibration.requests, calibration.choice.chosen
    policies = [policy for policy, _ in requests.pruned]
    policy = chosen.policy if chosen is not None and chosen.retention < 1 else policies[-1]
    thresholds = np.linspace(0, 1, 101)
    score = next(iter(requests.scores)) if chosen is None or chosen.threshold is None else chosen.score
    retentions = {r: p for p, r in requests.pruned if p == policy or r == 1}
    for number, (retention, own) in enumerate(sorted(retentions.items(), reverse=True)):
        losses = [calibration.lost(Setting(own, retention, float(one), score)) for one in thresholds]
        axis.plot(
            thresholds, losses, color=_COLOURS[number % len(_COLOURS)], label=f"loss, {retention:.0%} kept"
        )
    exits = [float(requests.exits(Setting(policy, 1.0, float(one), score)).mean()) for one in thresholds]
    axis.axhline(calibration.promise.max_loss, color="black", linestyle=":", linewidth=1.2)
    if chosen is not None and chosen.threshold is not None:
        axis.plot(chosen.threshold, calibration.lost(chosen), "k*", markersize=13, label="chosen", zorder=5)
    axis.set(xlabel=f"exit threshold ({score})", ylabel="mean loss of all requests")
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    other = axis.twinx()
    other.plot(thresholds, exits, color=GREY, linestyle="--", label="requests that exit")
    other.set(ylim=(0, 1.02), ylabel="requests that exit")
    other.grid(False)
    other.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    handles = [one for both in (axis, other) for one in both.get_legend_handles_labels()[0]]
    axis.legend(handles, [str(one.get_label()) for one in handles], fontsize=8.5, loc="upper right")
    axis.set_title(f"Loss and exits over the threshold ({policy})")


def _over_retention(axis: Axes, calibration: Calibration) -> None:
    """Cost, one line per policy: without exits, and with those of the chosen threshold."""
    requests, chosen = calibration.requests, calibration.choice.chosen
    thresholds = [None] if chosen is None or chosen.threshold is None else [None, chosen.threshold]
    by_policy: dict[str, list[float]] = {}
    for policy, retention in requests.pruned:
        if retention < 1:
            by_policy.setdefault(policy, []).append(retention)
    for number, (policy, retentions) in enumerate(by_policy.items()):
        for threshold in thresholds:
            shown = sorted(retentions)
            score = "paper" if chosen is None or threshold is None else chosen.score
            settings = [Setting(policy, retention, threshold, score) for retention in shown]
            costs = [calibration.spent(setting) for setting in settings]
            name = "no exits" if threshold is None else f"exits from {threshold:g}"
            axis.plot(
                shown, costs, marker="o", color=_COLOURS[number % len(_COLOURS)],
                linestyle="-" if threshold is None else "--", label=f"{policy}, {name}",
            )  # fmt: skip
    if chosen is not None:
        axis.plot(chosen.retention, calibration.spent(chosen), "k*", markersize=13, label="chosen", zorder=5)
    axis.axhline(1, color="black", linestyle=":", linewidth=1.2)
    axis.set(
        xlabel="visual tokens kept", ylabel="relative to the large model alone", title="Cost over retention"
    )
    axis.set_xlim(0, 1.05)
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.legend(fontsize=8.5)


def _tests(axis: Axes, calibration: Calibration) -> None:
    """Loss over cost of every setting that was tested, and what it is below."""
    for tested in calibration.choice.tests:
        colour = _COLOURS[2] if tested.passed else _COLOURS[1]
        mean = tested.lost / tested.n
        where = calibration.spent(tested.setting)
        axis.plot([where, where], [mean, tested.bound], color=colour, linewidth=1)
        axis.plot(where, mean, "o", color=colour, markersize=5)
    chosen = calibration.choice.chosen
    for tested in calibration.choice.tests:
        if tested.setting == chosen:
            axis.plot(calibration.spent(chosen), tested.lost / tested.n, "k*", markersize=13, zorder=5)
    axis.axhline(calibration.promise.max_loss, color="black", linestyle=":", linewidth=1.2)
    axis.invert_xaxis()
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.set(
        xlabel="cost relative to the large model alone", ylabel="loss of those that test, and its bound",
        title="Tested from left to right (green: passed)",
    )  # fmt: skip
