"""The rule on made-up costs: seconds that can be added up by hand."""

from dataclasses import replace

import pytest

from vllm_sgl.core import Facts
from vllm_sgl.decide.costs import Costs

#: 10 ms + 0.1 ms per visual token + 5 ms per further token; prefill 1 ms per token from 8 ms at 8 on.
COSTS = Costs(guide=(0.010, 1e-4), decode=0.005, prefill=((8, 0.008), (32, 0.032), (128, 0.128)))


def facts(visual, text=20, **more):
    return Facts(visual_tokens=(visual,), prompt_tokens=visual + text, **more)


def test_prefill_between_and_beyond_what_was_measured():
    bent = Costs(guide=(0, 0), decode=0, prefill=((10, 1.0), (20, 3.0), (40, 4.0)))
    assert [bent.large_prefill(n) for n in (5, 10, 15, 20, 30, 40, 60)] == [0, 1, 2, 3, 3.5, 4, 5]


@pytest.mark.parametrize("tokens", [1, 4, 8, 32])
def test_guidance_costs_every_token_that_the_guide_may_write(tokens):
    assert COSTS.guidance(200, tokens) == pytest.approx(0.010 + 0.020 + 0.005 * (tokens - 1))


def test_a_long_answer_waits_for_the_guide():
    """24 more tokens at 5 ms each: 165 ms + 0.1 N, against N / 2 ms."""
    assert COSTS.break_even(0.5, False, 32, 1000) == 413
    assert COSTS.pays(facts(120, max_tokens=8), 0.5, False, 32)


def test_what_is_in_the_prefix_cache_cannot_be_saved():
    """Of 114 visual tokens and 20 others all but the last 10 are known; nothing is to be pruned of these."""
    known = facts(114, known_items=1, known_tokens=124)
    assert not COSTS.pays(known, 0.5, False, 1)
    assert not COSTS.pays(known, 0.5, True, 1)
    two = Facts(visual_tokens=(114, 57), prompt_tokens=191, known_items=1, known_tokens=124)
    assert not COSTS.pays(two, 0.6, False, 1)  # 23 ms of 57 against 10 + 17
    assert COSTS.pays(two, 0.5, False, 1)


def test_pruning_must_save_more_than_guidance_costs():
    # 8 tokens: 45 ms + 0.1 N; saved at R = 0.5: N / 2 ms. Even at N = 112.5.
    assert not COSTS.pays(facts(112), 0.5, False, 8)
    assert COSTS.pays(facts(114), 0.5, False, 8)


@pytest.mark.parametrize("limits", [(1, None), (1, 500), (32, 1)])
def test_a_short_answer_costs_less(limits):
    guide_tokens, max_tokens = limits
    assert COSTS.pays(facts(60, max_tokens=max_tokens), 0.5, False, guide_tokens)
    assert not COSTS.pays(facts(60), 0.5, False, 8)


def test_an_exit_may_save_the_whole_prefill():
    assert not COSTS.pays(facts(60), 0.5, False, 8)
    assert COSTS.pays(facts(60), 0.5, True, 8)
    assert COSTS.pays(facts(60), 1.0, True, 8)
    assert not COSTS.pays(facts(10), 0.5, True, 8)


def test_all_images_of_a_request_count():
    two = Facts(visual_tokens=(57, 57), prompt_tokens=134)
    assert COSTS.pays(two, 0.5, False, 8)


def test_a_guide_that_sees_less_costs_less():
    """Its work is counted in its own visual tokens, the saving in the large model's."""
    assert not COSTS.pays(facts(100), 0.5, False, 8)
    assert COSTS.pays(facts(100, seen_tokens=40), 0.5, False, 8)
    assert not COSTS.pays(facts(114, seen_tokens=200), 0.5, False, 8)


def test_what_the_guide_sees_of_an_image_that_nobody_sent():
    """Between and beyond the images that were counted: at most 40 of its tokens here."""
    costs = replace(COSTS, seen=((20, 20), (60, 40), (200, 40)))
    assert [costs.seen_tokens(n) for n in (10, 20, 40, 60, 100, 500)] == [10, 20, 30, 40, 40, 40]
    assert COSTS.seen_tokens(77) == 77
    # Saved N / 2 ms, which 45 ms + 4 ms for 40 tokens are less than from 99 on.
    assert costs.break_even(0.5, False, 8, 1000) == 99


def test_what_closed_tiles_may_save_is_not_counted():
    """No policy promises that any tile stays closed, however much the vision encoder takes."""
    slow = replace(COSTS, vision=1.0)
    assert slow.break_even(0.5, False, 8, 1000) == COSTS.break_even(0.5, False, 8, 1000)
    assert not slow.pays(facts(112), 0.5, False, 8)


def test_break_even_is_where_guidance_begins_to_pay():
    assert COSTS.break_even(0.5, False, 8, 1000) == 113
    assert COSTS.break_even(0.25, False, 8, 1000) == 69
    assert COSTS.break_even(0.5, False, 8, 113) == 113
    assert COSTS.break_even(0.5, False, 8, 112) is None
    assert replace(COSTS, guide=(0.0, 0.0), decode=0.0).break_even(0.5, True, 8, 1000) == 1


def test_a_long_context_is_not_tried_length_by_length(monkeypatch):
    """On the server's event loop, several times at start."""
    tried, pays = [], Costs.pays
    monkeypatch.setattr(Costs, "pays", lambda *asked: tried.append(1) or pays(*asked))
    assert COSTS.break_even(0.5, False, 8, 262_144) == 113
    assert len(tried) < 40
