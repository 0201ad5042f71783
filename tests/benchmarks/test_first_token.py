"""`benchmarks.first_token`: the model of steps, against what can be reckoned by hand."""

from dataclasses import replace

import pytest

from benchmarks.first_token import DEVICES, Device, Engine, Prompt, Simulation, Way, rows

DEVICE = Device("made up", 1.0, 2.0, 0.3, 0.1, visual=80, text=20, answers=(3,), budget=200, sequences=8)
#: Between two processes.
HOPS = 0.01


def test_a_lone_request_waits_for_all_of_its_parts_and_nothing_else():
    plain = Simulation(DEVICE, Way(), 1, 10).run()
    assert plain.first_token == pytest.approx(0.1 + 1.0 + 2.0, abs=HOPS)
    assert 1 / plain.throughput == pytest.approx(3.1 + 2 * (0.1 + 0.02), abs=HOPS)  # two more tokens
    guided = Simulation(DEVICE, Way(True, kept=0.5, opened=0.75), 1, 10).run()
    assert guided.first_token == pytest.approx((0.1 + 0.3) + (0.1 + 0.75 + 2.0 * 0.6), abs=HOPS)


def test_two_busy_engines_run_at_half_speed():
    """Two clients, one token each: a pass of the guide beside a prefill takes as long as one after it."""
    device = replace(DEVICE, answers=(1,), budget=100, step=0.0)
    found = Simulation(device, Way(True), 2, 100).run()
    assert 1 / found.throughput == pytest.approx(0.3 + 1.0 + 2.0, rel=0.02)


def prompt(left, encoded, charged):
    return Prompt(5, left, 15, encoded, charged, 1, lambda: None, lambda: None)


def test_an_image_that_does_not_fit_the_encoders_budget_ends_its_prompt_for_the_step():
    engine = Engine(200, 100, 8, lambda tokens, encoded: float(encoded))
    engine.waiting = [prompt(20, 60, 60), prompt(20, 60, 60), prompt(20, 60, 60)]
    engine.begin()
    # All of the first; five tokens of the second and the third, without their images.
    assert [some for _, some in engine.step] == [40, 5, 5]
    assert engine.left == 60
    engine.finish()
    engine.begin()
    assert [some for _, some in engine.step] == [35]
    # Charged by what is left, all three images are encoded in one step.
    engine = Engine(200, 100, 8, lambda tokens, encoded: float(encoded))
    engine.waiting = [prompt(20, 60, 20), prompt(20, 60, 20), prompt(20, 60, 20)]
    engine.begin()
    assert engine.left == 180


def test_charging_what_is_encoded_brings_first_tokens_sooner_than_plain_vllms():
    found = [row for row in rows(DEVICES[:1], 100) if (row["clients"], row["encoded"]) == (4, 0.81)]
    assert found[0]["first token, kept"] < 1 < found[0]["first token, encoded"]
    assert found[0]["requests/s, encoded"] > 0.98 * found[0]["requests/s, kept"] > 1.5
