"""`benchmarks.variants` and `benchmarks.overlap`: order and arithmetic."""

import json

import pytest

from benchmarks import variants
from benchmarks.overlap import Times, row
from benchmarks.serve.bench import Run
from benchmarks.serve.presets import PRESETS
from benchmarks.serve.settings import PLAIN
from benchmarks.serving.workspace import Workspace
from benchmarks.variants import SETTINGS, SHIPPED, VARIANTS

NAMES = (SHIPPED, "small-step")


def run(step, throughput, ttft=1.0):
    return Run(step, 0, 4, throughput, ttft, ttft, ttft, ttft, 0.0, 0.0, None, None, 0.0, right=(1.0, 0.0))


def test_every_variant_stands_between_plain_runs_and_none_is_always_first():
    rounds = [list(variants.turns(NAMES, 4, round)) for round in range(2)]
    for round, turns in enumerate(rounds):
        assert [name for name, _ in turns[:: len(SETTINGS) + 1]] == [None, None, None]
        assert all((name is None) == (step.setting == PLAIN) for name, step in turns)
        assert {(step.round, step.clients) for _, step in turns} == {(round, 4)}
    assert [turns[1][0] for turns in rounds] == list(NAMES)


def test_a_variant_is_set_against_plain_and_against_what_is_shipped():
    runs = {None: [], **{name: [] for name in NAMES}}
    for round, quick in enumerate((1.0, 4.0)):
        for name, step in variants.turns(NAMES, 4, round):
            pace = {None: 2.0, SHIPPED: 3.0, "small-step": 3.0 * quick}[name]
            runs[name].append(run(step, pace, 1 / pace))
    found = {(one["variant"], one["setting"]): one for one in variants.rows(runs)}
    assert len(found) == len(NAMES) * len(SETTINGS)
    shipped, other = (found[name, str(SETTINGS[0])] for name in NAMES)
    assert shipped["throughput"] == shipped["median ttft"] == 1.5
    assert shipped["throughput, to shipped"] == 1
    assert other["throughput"] == pytest.approx(1.5 * 2.5)  # the median of two rounds
    assert other["median ttft, to shipped"] == pytest.approx(2)  # their geometric mean
    assert (other["rounds"], other["right %"]) == (2, 50)


def test_a_variant_is_another_server(tmp_path):
    workspace, pair = Workspace(True, tmp_path, 0.0), PRESETS["signs-26b"].pair
    made = {name: pair.server(workspace, "guided", variant=variant) for name, variant in VARIANTS.items()}
    assert len({server.log for server in made.values()}) == len(VARIANTS)
    own = {name: server._command for name, server in made.items()}
    assert [flag for flag in own["charged-by-kept"] if "scheduler" in flag] == list(
        VARIANTS["charged-by-kept"].flags
    )
    given = {
        name: json.loads(flag.partition("=")[2])
        for name, command in own.items()
        for flag in command
        if flag.startswith("--sgl-small-args=")
    }
    assert given["small-step"] == given[SHIPPED] | {"max_num_batched_tokens": 256}


def test_overlap():
    times = [Times(0.1, 0.3, 0.4), Times(0.1, 0.3, 0.2), Times(0.1, 0.3, 0.32)]
    assert [one.gain for one in times] == pytest.approx([1, 2, 1.25])
    found = row(times, 0.2)
    assert (found["images"], found["of it encoding s"]) == (3, 0.2)
    assert found["in turn / at once"] == pytest.approx(1.25)
