"""The arithmetic of `benchmarks.serve`: cost model, ratios, noise, efficiency."""

import itertools
import math
from dataclasses import replace

import pytest

from benchmarks.accuracy.cost import ModelCost
from benchmarks.serve import figures
from benchmarks.serve.bench import Run
from benchmarks.serve.components import Samples, costs
from benchmarks.serve.cost import PARTS, kept
from benchmarks.serve.presets import GROUP, PRESETS, Setting, Step
from benchmarks.serving.pair import CPU
from tools.tiny_internvl import tokenizer
from tools.tiny_internvl.checkpoint import config


def samples(**seconds):
    made = Samples()
    for name, values in seconds.items():
        setattr(made, name, values)
    return made


SMALL = samples(
    seen=[0.03, 0.5, 0.01], prefill={1.0: [0.01, 0.02, 9], 0.35: [9]}, decode=[0.03], consistency=[0.04]
)
LARGE = samples(
    seen=[0.9, 0.7, 5], prefill={1.0: [0.7, 0.8, 2], 0.35: [0.3]}, decode=[0.2, 0.0], consistency=[9.0]
)
COSTS = costs(SMALL, LARGE)
PRUNE, EXIT = Setting(0.35, False), Setting(0.35, True)


def run(setting=None, throughput=1.0, group=0, round=0, clients=4, latency=1.0, **changes):
    step = Step(round, clients, group, setting)
    exits = 0.5 if setting and setting.exits else 0.0
    made = Run(step, 8, throughput, latency, latency, latency, latency, exits, exits * 2, None, None, 0.0)
    return replace(made, **changes)


def test_vision_is_what_the_prefill_of_as_many_tokens_leaves():
    assert COSTS.small_vision == pytest.approx(0.03 - 0.02)
    assert COSTS.large_vision == pytest.approx(0.9 - 0.8)
    quick = samples(seen=[0.7], prefill={1.0: [0.8]}, decode=[0], consistency=[0])
    assert costs(quick, LARGE).small_vision == 0


def test_cost_model():
    plain = 0.1 + 0.8 + 0.1
    assert sum(COSTS.parts(None).values()) == pytest.approx(plain)
    assert COSTS.ideal(Setting(1.0, False)) == 1  # a bypass costs nothing
    assert COSTS.ideal(PRUNE) == pytest.approx(plain / (0.06 + 0.5))
    half = 0.06 + 0.04 + 0.5 * (0.1 + 0.3 + 0.1)
    assert COSTS.ideal(EXIT, exit_share=0.5, scored_share=1) == pytest.approx(plain / half)
    assert COSTS.ideal(EXIT, exit_share=1, scored_share=1) == pytest.approx(plain / 0.1)
    assert COSTS.ideal(Setting(1.0, True), exit_share=0, scored_share=1) == pytest.approx(plain / 1.1)


def test_parts_say_where_time_goes():
    parts = COSTS.parts(EXIT, exit_share=0.5, scored_share=0.75)
    assert tuple(parts) == PARTS
    assert list(parts.values()) == pytest.approx([0.01, 0.02, 0.03, 0.03, 0.05, 0.15, 0.05])


@pytest.mark.parametrize(("retention", "tokens"), [(1.0, 1792), (0.35, 627), (0.09, 161), (0.0001, 1)])
def test_kept_tokens(retention, tokens):
    assert kept(retention, 1792) == tokens


def test_a_ratio_is_to_the_mean_of_the_plain_runs_around_it():
    runs = [
        run(throughput=1, latency=4),
        run(PRUNE, throughput=3, latency=2),
        run(throughput=2, group=1, latency=2),
        run(EXIT, throughput=8, group=1),
        run(throughput=6, group=2),
    ]
    first, second = figures.points(runs)
    assert first.setting == PRUNE
    assert first.ratios["throughput"] == [pytest.approx(3 / 1.5)]
    assert first.ratios["median ttft"] == first.ratios["p99 e2e"] == [pytest.approx(3 / 2)]
    assert second.ratios["throughput"] == [pytest.approx(8 / 4)]


def test_points_without_plain_runs_around_them_wait():
    assert figures.points([run(), run(PRUNE)]) == []
    assert figures.points([run(), run(PRUNE), run(group=1, clients=1)]) == []
    assert figures.points([run(), run(PRUNE), run(group=1, round=1)]) == []


def rounds(*throughputs):
    return [
        one
        for number, throughput in enumerate(throughputs)
        for one in (run(round=number), run(PRUNE, throughput, round=number), run(round=number, group=1))
    ]


def test_a_figure_is_the_median_over_rounds():
    (row,) = figures.rows(rounds(1.2, 1.5, 9.0), COSTS)
    figure = row["figures"]["throughput"]
    assert (figure["value"], figure["low"], figure["high"]) == pytest.approx((1.5, 1.2, 9.0))
    assert row["rounds"] == 3
    assert row["ideal"] == pytest.approx(1 / 0.56)
    assert row["efficiency"] == pytest.approx(1.5 * 0.56)
    assert row["overhead_seconds"] == pytest.approx(1 / 1.5 - 0.56)


def test_noise_of_rounds():
    """Two rounds a factor of e apart, four plain runs alike: 1/2 over one and two degrees of freedom."""
    assert figures.noise(rounds(1, math.e), "throughput") == pytest.approx(math.sqrt(0.5 / 3))


def test_noise_of_plain_runs():
    runs = [run(), run(PRUNE), run(throughput=math.e, group=1)]
    assert figures.noise(runs, "throughput") == pytest.approx(math.sqrt(0.75))
    assert figures.noise(runs, "p99 e2e") == 0
    assert figures.noise(runs[:2], "throughput") is None


@pytest.mark.parametrize(
    ("count", "expected"), [(1, 0.2), (2, 0.2 / math.sqrt(2)), (8, 0.2 * math.sqrt(math.pi / 16))]
)
def test_error_of_a_median(count, expected):
    assert figures.error(0.2, count) == pytest.approx(expected)
    assert figures.error(None, count) is None


@pytest.mark.parametrize("name", PRESETS)
def test_every_setting_stands_between_two_plain_runs_in_every_round(name):
    preset = PRESETS[name]
    orders = []
    for round in range(2):
        steps = list(preset.steps(round))
        for clients in preset.loads:
            here = [step for step in steps if step.clients == clients]
            assert sorted(s.setting is not None for s in here).count(True) == len(preset.settings)
            assert {step.setting for step in here} == {None, *preset.settings}
            plain = [place for place, step in enumerate(here) if step.setting is None]
            assert plain[0] == 0
            assert plain[-1] == len(here) - 1
            assert max(b - a for a, b in itertools.pairwise(plain)) <= GROUP + 1
            for place, step in enumerate(here):
                if step.setting:
                    before = max(p for p in plain if p < place)
                    assert (here[before].group, step.group) == (step.group, step.group)
        orders.append([step.setting for step in steps])
    assert orders[0] != orders[1]


def test_the_small_model_of_the_cpu_preset_is_a_tenth_of_the_large_one():
    words = tokenizer.train()
    large, small = (ModelCost.of(config(spec, words)) for spec in (CPU.large, CPU.small))
    tokens = CPU.visual_tokens
    assert tokens == 5 * 256
    whole = large.answer(tokens + 90, tokens, tokens, 8)
    assert 0.08 < small.answer(tokens + 90, tokens, tokens, 8) / whole < 0.13
    assert large.prefill(tokens + 90) / whole > 0.8
