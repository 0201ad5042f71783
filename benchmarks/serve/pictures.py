"""Speed-up, efficiency, and where a request's time goes."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from benchmarks.plotting import save
from vllm_sgl.commands.plotting import BLACK, BLUE, GREEN, GREY, PINK, RC, RED, SKY, YELLOW

from .bench import Run
from .cost import PARTS
from .curve import points as curve_points
from .curve_picture import draw_curve
from .figures import Point, Times, points, seconds_per_request
from .settings import PLAIN, Setting

#: By retention, and where one has several settings, by setting.
_COLOURS, _MARKERS = (BLACK, BLUE, GREEN, RED, PINK), "os^Dv"
# Neighbours differ in lightness too; the small model's parts are hatched.
_PARTS = dict(zip(PARTS, (SKY, GREEN, PINK, YELLOW, RED), strict=True))
_OVERHEAD = "overhead"


def draw(runs: Sequence[Run], times: Times, folder: Path, title: str) -> list[Path]:
    """Write the pictures; their paths."""
    found = [point for point in points(runs) if point.setting.method == "sgl"]
    with plt.rc_context(RC):
        speed = _over_clients(found, lambda p: p.speed_up, lambda p: p.ideal(times))
        speed.axes[0].set_ylabel("requests per second, relative to plain vLLM")
        efficiency = _over_clients(found, lambda p: p.speed_up / p.ideal(times))
        efficiency.axes[0].set_ylabel("efficiency: measured / ideal speed-up")
        for axis in efficiency.axes:
            axis.yaxis.set_major_formatter(PercentFormatter(1))
        made = {
            "speed-up": (speed, "speed-up (bars: all rounds; dashed: ideal)"),
            "efficiency": (efficiency, "efficiency"),
            "time": (_time(runs, found, times), "where a request's time goes"),
        }
        if curve := curve_points(runs):
            made["accuracy"] = (draw_curve(curve), "accuracy over seconds")
        return [
            save(figure, folder / f"{name}.png", f"{title}: {what}") for name, (figure, what) in made.items()
        ]


def _over_clients(
    found: Sequence[Point], value: Callable[[Point], float], ideal: Callable[[Point], float] | None = None
) -> Figure:
    """A line per setting; exits off on the left, on at the right."""
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.6), layout="constrained", sharey=True)
    clients = sorted({point.clients for point in found})
    retentions = sorted({point.setting.retention for point in found}, reverse=True)
    for axis, exits in zip(axes, (False, True), strict=True):
        axis.axhline(1, color=GREY, linewidth=1)
        settings = dict.fromkeys(point.setting for point in found if point.setting.exits == exits)
        for setting in settings:
            line = sorted((p for p in found if p.setting == setting), key=lambda point: point.clients)
            places = [clients.index(point.clients) for point in line]
            colour = _COLOURS[retentions.index(setting.retention) % len(_COLOURS)]
            alike = [one for one in settings if one.retention == setting.retention]
            axis.plot(
                places, [value(p) for p in line], color=colour,
                marker=_MARKERS[alike.index(setting) % len(_MARKERS)], label=_label(setting, ", "),
            )  # fmt: skip
            if ideal is not None:
                axis.plot(places, [ideal(p) for p in line], color=colour, linestyle="--", linewidth=1)
                for place, point in zip(places, line, strict=True):
                    ratios = point.ratios["throughput"]
                    axis.vlines(place, min(ratios), max(ratios), color=colour, linewidth=3, alpha=0.4)
        axis.set_title(f"early exit {'on' if exits else 'off'}{_exit_range(found) if exits else ''}")
        axis.set_xticks(range(len(clients)), map(str, clients))
        axis.set_xlabel("clients")
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=8)
    return figure


def _exit_range(found: Sequence[Point]) -> str:
    shares = [point.mean("exit_share") for point in found if point.setting.exits]
    return f" ({min(shares):.0%} to {max(shares):.0%} of requests exit)" if shares else ""


def _time(runs: Sequence[Run], found: Sequence[Point], times: Times) -> Figure:
    """Stacked component times of each setting, and what the measured time has beyond them, with one client
    and with the most."""
    clients = sorted({point.clients for point in found})
    figure, axes = plt.subplots(1, 2, figsize=(12, 5.4), layout="constrained", sharey=True)
    for axis, count in zip(axes, (clients[0], clients[-1]), strict=True):
        here = sorted(
            (p for p in found if p.clients == count), key=lambda p: (p.setting.exits, -p.setting.retention)
        )
        bars = [("plain", PLAIN, times(count).parts(PLAIN))]
        bars += [(_label(p.setting), p.setting, p.parts(times)) for p in here]
        _stack(axis, runs, count, bars)
        axis.set_title(f"{count} client{'s' if count > 1 else ''}")
    axes[0].set_ylabel("milliseconds per request (1 / throughput)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _stack(axis: Axes, runs: Sequence[Run], clients: int, bars: Sequence[tuple[str, Setting, dict]]) -> None:
    names = [name for name, _, _ in bars]
    tops = [0.0] * len(bars)
    for part, colour in _PARTS.items():
        heights = [1000 * parts[part] for _, _, parts in bars]
        hatch = "///" if not part.startswith("large") else None
        axis.bar(names, heights, bottom=tops, color=colour, hatch=hatch, edgecolor="white", label=part)
        tops = [top + height for top, height in zip(tops, heights, strict=True)]
    measured = [1000 * seconds_per_request(runs, setting, clients) for _, setting, _ in bars]
    overheads = [max(0.0, total - top) for total, top in zip(measured, tops, strict=True)]
    axis.bar(names, overheads, bottom=tops, color="#dddddd", edgecolor=GREY, label=_OVERHEAD)
    axis.scatter(names, measured, marker="_", s=260, color=BLACK, label="measured", zorder=3)
    axis.tick_params(axis="x", labelsize=8)


def _label(setting: Setting, between: str = "\n") -> str:
    parts = [f"R={setting.retention:g}"]
    if setting.exits:
        parts.append("exits" if setting.threshold is None else f"exits {setting.threshold:g}")
    return between.join([*parts, *([setting.policy] if setting.policy else [])])
