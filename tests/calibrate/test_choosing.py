"""Choosing: the promise holds as often as it says, whatever is chosen; and it is worth something."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.calibrate.made_up import RETENTIONS, draw, true_loss
from vllm_sgl.commands.calibrate import choosing, sequence
from vllm_sgl.commands.calibrate.choosing import Promise
from vllm_sgl.commands.calibrate.cost import SecondsCost, TokensCost
from vllm_sgl.commands.calibrate.losses import Pruned, Requests, Setting
from vllm_sgl.decide.costs import Costs

THRESHOLDS = tuple(np.linspace(0.3, 0.99, 24))


def unlucky(rng, n):
    """Pruning to half loses nothing. Exits lose three in a hundred, whatever their score."""
    made = draw(rng, n)
    none = Pruned(np.zeros(n), made.visual_tokens * 0.5, made.tiles)
    lost = (rng.random(n) < 0.03).astype(float)
    return replace(made, small_loss=lost, pruned={**made.pruned, ("top", 0.5): none})


def choice(rng, n, promise, whole=True):
    return choosing.choose(
        draw(rng, n, whole), promise, TokensCost(), THRESHOLDS, seed=int(rng.integers(1 << 30))
    )


@pytest.mark.parametrize(
    ("level", "confidence", "n", "whole"),
    [(0.03, 0.9, 400, True), (0.03, 0.7, 400, True), (0.08, 0.9, 200, True), (0.05, 0.8, 500, False)],
)
def test_the_promise_is_broken_no_more_often_than_the_confidence_says(level, confidence, n, whole):
    """Broken by whichever of all the settings that passed, not by the chosen one alone."""
    rng = np.random.default_rng(0)
    promise = Promise(level, confidence)
    runs = 400
    broken = found = 0
    for _ in range(runs):
        made = choice(rng, n, promise, whole)
        losses = [true_loss(t.setting.retention, t.setting.threshold) for t in made.tests if t.passed]
        broken += any(loss > level for loss in losses)
        found += bool(losses)
    assert broken / runs <= promise.error + 2 * math.sqrt(promise.error * confidence / runs)
    assert found / runs > 0.6


def test_a_best_guess_would_break_the_promise():
    """What the tests are for: the cheapest setting whose losses at hand are small enough is too cheap."""
    rng = np.random.default_rng(0)
    broken = 0
    for _ in range(200):
        made = draw(rng, 400)
        small = [s for s in sequence.grid(made, THRESHOLDS) if made.losses(s).mean() <= 0.03]
        guess = min(small, key=lambda setting: TokensCost().of(made, setting))
        broken += true_loss(guess.retention, guess.threshold) > 0.03
    assert broken / 200 > 0.4


def test_the_fewest_exits_come_first_then_pruning_and_each_is_cheaper_than_those_before():
    made = unlucky(np.random.default_rng(1), 300)
    made = replace(made, small_loss=(made.scores["paper"] < 0.5) * 1.0)
    cost = TokensCost()
    found = sequence.order(made, cost, THRESHOLDS)
    costs = [cost.of(made, setting) for setting in found]
    assert costs == sorted(costs, reverse=True)
    assert len(set(costs)) == len(costs)
    assert made.losses(found[0]).sum() == 0
    assert found[0].retention == 1
    assert 0 < made.exits(found[0]).mean() < 0.02
    assert found[1] == Setting("top", 0.5, None)
    assert found[-1] == Setting("top", 0.2, THRESHOLDS[0])


def test_without_pruning_exits_come_from_the_mildest_on():
    """As in a shadow server's log."""
    made = draw(np.random.default_rng(1), 300)
    exits = replace(made, pruned={("top", 1.0): made.pruned["top", 1.0]})
    found = [setting.threshold for setting in sequence.order(exits, TokensCost(), THRESHOLDS)]
    assert found == sorted(found, reverse=True)
    assert found[0] == THRESHOLDS[-1]


def test_exits_that_fail_do_not_keep_what_prunes_from_its_test():
    """Among sixty thresholds some lost nothing by luck; they must not end the sequence before pruning."""
    rng = np.random.default_rng(11)
    found = [choosing.choose(unlucky(rng, 400), Promise(0.02, 0.9), TokensCost()) for _ in range(30)]
    assert all(one.chosen is not None for one in found)
    assert sum(one.chosen.retention <= 0.5 for one in found) >= 28


def test_pruning_that_fails_leaves_a_promise_of_exits():
    """Pruning to half loses five in a hundred; the requests that order often miss it."""
    rng = np.random.default_rng(12)
    missed = 0
    for _ in range(30):
        made = draw(rng, 200)
        lossy = {r: replace(made.pruned["top", r], loss=(rng.random(200) < 0.05) * 1.0) for r in RETENTIONS}
        made = replace(made, pruned={**made.pruned, **{("top", r): lossy[r] for r in RETENTIONS}})
        found = choosing.choose(made, Promise(0.03, 0.9), TokensCost())
        if found.tests[1].setting.retention < 1 and not found.tests[1].passed:
            missed += 1
            assert found.chosen is not None
            assert found.chosen.retention == 1
            assert made.exits(found.chosen).any()
    assert missed > 0


def test_the_cheapest_of_those_that_passed_is_chosen():
    rng = np.random.default_rng(2)
    made = draw(rng, 3000)
    cost = TokensCost()
    found = choosing.choose(made, Promise(0.05, 0.9), cost, THRESHOLDS)
    passed = [tested.setting for tested in found.tests if tested.passed]
    assert found.chosen in passed
    assert cost.of(made, found.chosen) == min(cost.of(made, setting) for setting in passed)
    assert [tested.passed for tested in found.tests] == [True] * len(passed) + [False]
    assert 0.5 * 0.05 < true_loss(found.chosen.retention, found.chosen.threshold) < 0.05


def test_more_requests_promise_more():
    rng = np.random.default_rng(3)

    def spent(n):
        made = draw(rng, n)
        chosen = choosing.choose(made, Promise(0.05, 0.9), TokensCost(), THRESHOLDS).chosen
        return 1 if chosen is None else TokensCost().of(made, chosen)

    few, more, many = (np.mean([spent(n) for _ in range(20)]) for n in (150, 400, 2000))
    assert few > more > many


@pytest.mark.parametrize(("n", "ordering"), [(0, 0), (1, 0), (3, 1), (344, 114), (600, 200)])
def test_a_split_has_every_request_once(n, ordering):
    first, second = choosing.split(n, seed=5)
    assert len(first) == ordering
    assert sorted([*first, *second]) == list(range(n))
    if n > 100:
        assert list(first) != list(choosing.split(n, seed=6)[0])


def test_the_fewest_requests_in_all():
    promise = Promise(0.01, 0.9)
    assert (promise.fewest_tests, promise.fewest) == (230, 344)
    assert len(choosing.split(promise.fewest, 0)[1]) == 230
    assert len(choosing.split(promise.fewest - 1, 0)[1]) == 229


def test_thresholds_are_scores_rounded_down():
    """So that the request whose score it is exits as well."""
    made = draw(np.random.default_rng(4), 500)
    found = sequence.scores(made.scores["paper"])
    assert len(found) == 60
    assert found == sorted(found, reverse=True)
    assert all(round(score, 4) == score for score in found)
    assert made.exits(Setting("top", 1.0, found[0])).sum() == 1
    assert made.exits(Setting("top", 1.0, found[-1])).all()


def test_requests_that_nobody_guided_give_nothing_to_test():
    made = draw(np.random.default_rng(5), 50)
    none = Requests(
        **{
            **vars(made),
            "scores": {"paper": np.full(50, np.nan)},
            "pruned": {("top", 1.0): made.pruned["top", 1.0]},
        }
    )
    found = choosing.choose(none, Promise(0.1, 0.9), TokensCost())
    assert (found.tests, found.chosen) == ((), None)


@pytest.mark.parametrize("lowest", [0.0, 0.6])
def test_thresholds_are_scores_of_the_requests_that_order(lowest):
    """Those that test must not choose what they test."""
    made = draw(np.random.default_rng(14), 300)
    first, second = choosing.split(300, 0)
    found = choosing.choose(made, Promise(0.2, 0.9), TokensCost(), lowest=lowest)
    tried = {tested.setting.threshold for tested in found.tests} - {None}
    rounded = {math.floor(score * 10_000) / 10_000 for score in made.scores["paper"][first]}
    assert tried
    assert tried <= rounded
    assert min(tried) >= lowest
    assert not tried <= {math.floor(score * 10_000) / 10_000 for score in made.scores["paper"][second]}


COSTS = Costs(guide=(0.01, 0.0002), decode=0.003, prefill=((32, 0.02), (128, 0.03), (512, 0.2)), vision=0.001)


def test_seconds():
    made = draw(np.random.default_rng(6), 40)
    cost = SecondsCost(COSTS)
    plain = COSTS.large_prefill(120) + 0.001 * 100
    guide = COSTS.guidance(100, 4)
    pruned = COSTS.large_prefill(40) + 0.001 * 100
    assert cost.of(made, Setting("top", 0.2, None)) == pytest.approx((guide + pruned) / plain)
    assert cost.of(made, Setting("top", 1.0, None)) == pytest.approx(1)
    every = cost.of(made, Setting("top", 0.2, 0.0))
    assert every == pytest.approx((guide + COSTS.guide[0]) / plain)
    tokens = np.array([1.0, 32, 33, 128, 400, 512, 2000])
    assert cost.prefill(tokens) == pytest.approx([COSTS.large_prefill(int(count)) for count in tokens])


def test_a_guide_that_cuts_images_otherwise_costs_its_own_tokens():
    """Of two images of 50 tokens each it has 20 of each, not 100; a cost file says so, and is read so."""
    crossed = replace(COSTS, seen=((50, 20), (500, 90)))
    made = replace(draw(np.random.default_rng(6), 40), images=np.full(40, 2.0))
    plain = COSTS.large_prefill(120) + 0.001 * 100
    pruned = COSTS.large_prefill(40) + 0.001 * 100
    spent = SecondsCost(crossed).of(made, Setting("top", 0.2, None))
    assert spent == pytest.approx((COSTS.guidance(40, 4) + pruned) / plain)
    one = replace(made, images=None)
    assert SecondsCost(crossed).seen(one)[0] == pytest.approx(crossed.seen_tokens(100), abs=0.5)
    assert SecondsCost(COSTS).seen(made).tolist() == made.visual_tokens.tolist()


def test_what_is_left_alone_costs_what_it_cost():
    made = draw(np.random.default_rng(7), 40)
    alone = Requests(**{**vars(made), "guided": np.zeros(40)})
    assert SecondsCost(COSTS).of(alone, Setting("top", 0.2, None)) == pytest.approx(1)


def test_tokens():
    made = draw(np.random.default_rng(8), 100)
    assert TokensCost().of(made, Setting("top", 0.2, None)) == pytest.approx(0.2)
    exits = made.exits(Setting("top", 1.0, 0.6)).mean()
    assert TokensCost().of(made, Setting("top", 0.5, 0.6)) == pytest.approx((1 - exits) * 0.5)


def test_losses_are_those_of_who_answers():
    made = draw(np.random.default_rng(9), 200)
    for retention in (1.0, *RETENTIONS):
        exits = made.scores["paper"] >= 0.4
        expected = [
            small if out else large
            for out, small, large in zip(
                exits, made.small_loss, made.pruned["top", retention].loss, strict=True
            )
        ]
        assert made.losses(Setting("top", retention, 0.4)).tolist() == expected
        assert (
            made.losses(Setting("top", retention, None)).tolist()
            == made.pruned["top", retention].loss.tolist()
        )


def test_requests_survive_json():
    made = draw(np.random.default_rng(10), 30)
    some = made.some(np.array([3, 3, 7]))
    again = Requests.parse(some.as_json())
    assert len(again) == 3
    assert again.scores["paper"] == pytest.approx(some.scores["paper"], abs=1e-6)
    assert again.pruned.keys() == made.pruned.keys()
    for setting in sequence.grid(made, [0.5]):
        assert again.losses(setting) == pytest.approx(some.losses(setting))
