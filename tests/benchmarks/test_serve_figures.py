"""The arithmetic of `benchmarks.serve`: cost model, ratios, noise, efficiency."""

import itertools
import math
from dataclasses import replace

import pytest

from benchmarks.accuracy.cost import ModelCost
from benchmarks.serve import figures, settings, tables
from benchmarks.serve.bench import Run
from benchmarks.serve.components import Samples, part_times
from benchmarks.serve.cost import PARTS
from benchmarks.serve.presets import PRESETS
from benchmarks.serve.settings import DEFAULT, GROUP, PLAIN, Setting, Step
from benchmarks.support.pair import CPU
from tools.tiny_internvl import tokenizer
from tools.tiny_internvl.checkpoint import config


def samples(**seconds):
    made = Samples()
    for name, values in seconds.items():
        setattr(made, name, values)
    return made


SMALL = samples(vision=[0.01, 0.5, 0.0], language={(4, 1.0): [0.05, 9, 0.04]}, consistency={4: [0.04]})
LARGE = samples(vision=[0.1], language={(4, 1.0): [0.9, 0.8, 2], (4, 0.35): [0.4], (1, 0.35): [7]})
TIMES = part_times(SMALL, LARGE, 4)
PRUNE, EXIT = Setting(retention=0.35), Setting(retention=0.35, exits=True)


def times(clients):
    assert clients == 4
    return TIMES


def run(setting=PLAIN, throughput=1.0, group=0, round=0, clients=4, latency=1.0, **changes):
    step = Step(round, clients, group, setting)
    exits = 0.5 if setting.exits else 0.0
    made = Run(step, 0, 8, throughput, latency, latency, latency, latency, exits, exits * 2, None, None, 0.0)
    return replace(made, **changes)


def test_medians_of_the_same_load():
    assert (TIMES.small_vision, TIMES.small_language, TIMES.consistency) == (0.01, 0.05, 0.04)
    assert (TIMES.large_vision, TIMES.large_language) == (0.1, {1.0: 0.9, 0.35: 0.4})
    noisy = samples(vision=[-0.1], language=LARGE.language)
    assert part_times(SMALL, noisy, 4).large_vision == 0


def test_cost_model():
    plain = 0.1 + 0.9
    assert sum(TIMES.parts(PLAIN).values()) == pytest.approx(plain)
    assert TIMES.ideal(Setting()) == 1  # a bypass costs nothing
    assert TIMES.ideal(PRUNE) == pytest.approx(plain / (0.06 + 0.5))
    half = 0.06 + 0.04 + 0.5 * (0.1 + 0.4)
    assert TIMES.ideal(EXIT, exit_share=0.5, scored_share=1) == pytest.approx(plain / half)
    assert TIMES.ideal(EXIT, exit_share=1, scored_share=1) == pytest.approx(plain / 0.1)
    assert TIMES.ideal(Setting(exits=True), exit_share=0, scored_share=1) == pytest.approx(plain / 1.1)
    closed = 0.06 + 0.25 * 0.1 + 0.4
    assert TIMES.ideal(PRUNE, encoded_share=0.25) == pytest.approx(plain / closed)


def test_the_encoder_costs_what_a_load_takes_beyond_its_language():
    """A batch of images costs less per image than one image alone: only so the ideal is a bound."""
    loads = [
        run(throughput=1 / 0.95),
        run(settings.SMALL, throughput=1 / 0.056),
        run(group=1, throughput=1 / 0.95),
    ]
    parts = figures.under_load(times, loads)(4)
    assert parts.large_vision == pytest.approx(0.95 - 0.9)
    assert parts.small_vision == pytest.approx(0.056 - 0.05)
    assert (parts.large_language, parts.consistency) == (TIMES.large_language, TIMES.consistency)
    assert sum(parts.parts(PLAIN).values()) == pytest.approx(0.95)  # plain vLLM is its own ideal
    assert figures.under_load(times, [])(4) == TIMES  # one image's, where no load was measured
    quick = [run(throughput=10), run(settings.SMALL, throughput=100)]
    assert figures.under_load(times, quick)(4).large_vision == 0


def test_parts_say_where_time_goes():
    parts = TIMES.parts(EXIT, exit_share=0.5, scored_share=0.75)
    assert tuple(parts) == PARTS
    assert list(parts.values()) == pytest.approx([0.01, 0.05, 0.03, 0.05, 0.2])
    encoded = TIMES.parts(EXIT, exit_share=0.5, scored_share=0.75, encoded_share=0.3)
    assert list(encoded.values()) == pytest.approx([0.01, 0.05, 0.03, 0.03, 0.2])


def test_the_ideal_counts_the_tiles_that_were_encoded():
    runs = [run(), run(PRUNE, throughput=1.5, encoded_share=0.5), run(group=1)]
    (row,) = figures.rows(runs, times)
    assert row["encoded_share"] == 0.5
    assert row["ideal"] == pytest.approx(1 / (0.06 + 0.05 + 0.4))


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
    (row,) = figures.rows(rounds(1.2, 1.5, 9.0), times)
    figure = row["figures"]["throughput"]
    assert (figure["value"], figure["low"], figure["high"]) == pytest.approx((1.5, 1.2, 9.0))
    assert row["rounds"] == 3
    assert row["ideal"] == pytest.approx(1 / 0.56)
    assert row["efficiency"] == pytest.approx(1.5 * 0.56)
    assert row["overhead_seconds"] == pytest.approx(1 / 1.5 - 0.56)


def beside(round, default, throughput):
    """A round whose plain runs make 2 requests a second."""
    values = ((PLAIN, 2.0, 0), (DEFAULT, default, 0), (PRUNE, throughput, 0), (PLAIN, 2.0, 1))
    return [run(setting, value, group, round) for setting, value, group in values]


def test_the_default_layout_is_a_column_of_its_own():
    (row,) = figures.rows(beside(0, 1.8, 3.6), times)
    assert row["figures"]["throughput"]["value"] == pytest.approx(1.8)
    assert row["beside_default_layout"]["throughput"] == pytest.approx(2)
    several = beside(0, 1.6, 3.2) + beside(1, 1.0, 4.0) + beside(2, 1.9, 5.7)
    (row,) = figures.rows(several, times)
    assert row["beside_default_layout"]["throughput"] == pytest.approx(3)  # median of 2, 4 and 3
    plain, default = figures.rows_beside(several)
    assert (plain["setting"], plain["relative throughput"]) == (str(PLAIN), None)
    assert (default["setting"], default["relative throughput"]) == (str(DEFAULT), pytest.approx(0.8))
    (row,) = figures.rows([one for one in several if one.step.setting != DEFAULT], times)
    assert row["beside_default_layout"]["throughput"] is None


def test_first_tokens_have_a_table_of_their_own(capsys):
    runs = [run(latency=2.0), run(PRUNE, latency=2.5), run(EXIT, latency=1.0), run(latency=2.0, group=1)]
    tables.show(runs, times)
    table = capsys.readouterr().out.split("Median time to the first token")[1].splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:3]] for line in table if line.startswith("| ")]
    assert cells[0] == ["setting", "4 clients"]
    assert cells[2] == ["plain, s", "2"]
    assert cells[3] == [str(PRUNE), "0.80 (±0%)"]
    assert cells[4] == [str(EXIT), "2.00 (±0%)"]


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
            others = [step.setting for step in here if step.setting != PLAIN]
            assert len(others) == len(set(others)) == len(preset.settings)
            assert set(others) == set(preset.settings)
            assert (DEFAULT in others) == preset.cpu
            plain = [place for place, step in enumerate(here) if step.setting == PLAIN]
            assert plain[0] == 0
            assert plain[-1] == len(here) - 1
            assert max(b - a for a, b in itertools.pairwise(plain)) <= GROUP + 1
            for place, step in enumerate(here):
                if step.setting != PLAIN:
                    before = max(p for p in plain if p < place)
                    assert here[before].group == step.group
        orders.append([step.setting for step in steps])
    assert orders[0] != orders[1]


@pytest.mark.parametrize("name", PRESETS)
def test_components_are_measured_at_every_load_that_an_engine_can_tell_apart(name):
    preset = PRESETS[name]
    assert set(preset.batches) == {preset.batched(clients) for clients in preset.loads}
    assert max(preset.batches) <= preset.pair.max_num_seqs
    assert all(preset.batches[clients] == preset.loads[clients] for clients in preset.batches)


def test_the_small_model_of_the_cpu_preset_is_a_tenth_of_the_large_one():
    words = tokenizer.train()
    large, small = (ModelCost.of(config(spec, words)) for spec in (CPU.large, CPU.small))
    tokens = CPU.visual_tokens
    assert tokens == 5 * 256
    whole = large.answer(tokens + 90, tokens, tokens, 8)
    assert 0.08 < small.answer(tokens + 90, tokens, tokens, 8) / whole < 0.13
    assert large.prefill(tokens + 90) / whole > 0.8
