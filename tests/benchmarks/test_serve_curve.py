"""Accuracy over measured seconds: what counts once, what is joined, what is drawn."""

from dataclasses import replace

import pytest

from benchmarks.plotting import save
from benchmarks.serve import curve
from benchmarks.serve.bench import Run
from benchmarks.serve.curve_picture import draw_curve
from benchmarks.serve.settings import DEFAULT, PLAIN, Setting, Step

PRUNE, EXIT = Setting(retention=0.35), Setting(retention=0.35, exits=True, threshold=0.9)


def run(setting, clients=1, first=0, right=(1, 0), throughput=2.0, round=0):
    step = Step(round, clients, 0, setting)
    return Run(step, first, 2, throughput, 1, 1, 1, 1, 0, 0, None, None, 0.0, right=right)


def test_every_question_counts_once():
    """Plain is asked the same questions around every group; rounds ask others."""
    runs = [run(PLAIN), run(PLAIN), run(PLAIN, clients=4, first=2, right=(1, 1)), run(PRUNE, right=(0, 0))]
    found = curve.accuracy(runs, PLAIN)
    assert (found.value, found.n) == (0.75, 4)
    assert curve.accuracy(runs, PRUNE).value == 0
    assert curve.accuracy(runs, EXIT) is None
    flipped = [run(PLAIN), run(PLAIN, right=(0, 0))]  # a near tie that load turned over
    assert curve.accuracy(flipped, PLAIN).value == pytest.approx(0.25)


def test_a_point_is_a_setting_at_a_load():
    runs = [run(PLAIN), run(PLAIN, throughput=4.0), run(PLAIN, clients=4, first=2, throughput=8.0)]
    one, four = curve.points(runs)
    assert (one.clients, one.seconds) == (1, pytest.approx(1 / 3))
    assert (four.clients, four.seconds) == (4, pytest.approx(1 / 8))
    assert one.accuracy == four.accuracy
    assert one.as_dict()["name"] == "plain"


def test_nobody_knows_what_is_right_of_pictures():
    assert curve.points([replace(run(PLAIN), right=None)]) == []


def test_lines_join_the_retentions_of_what_else_is_alike(tmp_path):
    settings = [
        PLAIN, DEFAULT, Setting("small"), Setting("random", 0.35), Setting("random", 0.18), Setting(), PRUNE,
        EXIT, replace(PRUNE, policy="tiles"), Setting("downsampled", 0.35),
    ]  # fmt: skip
    runs = [run(each, clients) for clients in (1, 4, 16) for each in settings]
    figure = draw_curve(curve.points(runs))
    assert [axis.get_title() for axis in figure.axes] == ["1 client", "16 clients"]
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert sorted(labels) == sorted(
        [
            "plain vLLM", "small model alone", "random tokens", "SGL", "SGL, exits from 0.9", "SGL, tiles",
            "image downsampled",
        ]
    )  # fmt: skip
    assert save(figure, tmp_path / "accuracy.png", "made up").stat().st_size > 10_000
