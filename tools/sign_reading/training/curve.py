"""Draw training logs: `python -m tools.sign_reading.training.curve LOG.jsonl ... -o curve.png`."""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

ANSWERING = ("few", "tiles", "joint", "drop")


def draw(logs: dict[str, Path], out: Path) -> None:
    """Two panels: what the encoder reads per visual token, and answers that are right, over steps.

    Stages follow each other along the axis. Crosses are the test split, fonts and a background unseen.
    """
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.4), sharey=True, layout="constrained")
    for colour, (name, path) in zip(("#0072B2", "#D55E00"), logs.items(), strict=False):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        reading = tuple(sorted({line["stage"] for line in lines if line["stage"].startswith("vision")}))
        for axis, stages, value in ((left, reading, "digit"), (right, ANSWERING, "exact")):
            points = _points(lines, stages, value)
            axis.plot(*zip(*points, strict=True), color=colour, label=name, linewidth=1)
        tested = _points(lines, ANSWERING, "test")
        right.plot(*zip(*tested, strict=True), "x", color=colour, label=f"{name}, test split")
    left.set(title="digits read, held-out tiles", xlabel="step", ylabel="share", ylim=(0, 1))
    right.set(title="answers right", xlabel="step")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.savefig(out, dpi=150)


def _points(lines: list[dict], stages: tuple[str, ...], value: str) -> list[tuple[int, float]]:
    """(step counted over the stages, value) of every line that has the value."""
    lasts = {stage: max((n["step"] for n in lines if n["stage"] == stage), default=0) for stage in stages}
    starts = {stage: sum(list(lasts.values())[:index]) for index, stage in enumerate(stages)}
    return sorted(
        (starts[n["stage"]] + n["step"], n[value]) for n in lines if n["stage"] in stages and value in n
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.sign_reading.training.curve", description=__doc__)
    parser.add_argument("logs", type=Path, nargs="+", help="training_log.jsonl of a model each")
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    draw({path.resolve().parent.name: path for path in arguments.logs}, arguments.out)


if __name__ == "__main__":
    main()
