"""Reading `vllm bench serve` and the servers' counters, and refusing what was not asked for."""

from dataclasses import replace

import pytest

from benchmarks.serve.answers import differences, right, same
from benchmarks.serve.bench import read
from benchmarks.serve.presets import PRESETS
from benchmarks.serve.settings import DEFAULT, PLAIN, Setting, Step
from benchmarks.serve.sources import Pictures, Request, Signs
from benchmarks.support.load import Reply
from benchmarks.support.server import Scrape
from benchmarks.support.workspace import BenchmarkError
from vllm_sgl.prune.base import kept_count

RESULT = {
    "completed": 4, "failed": 0, "total_output_tokens": 32, "request_throughput": 2.5,
    "generated_texts": ["417", "5", "", "no"],
    "median_ttft_ms": 100.0, "p99_ttft_ms": 200.0, "median_e2el_ms": 300.0, "p99_e2el_ms": 400.0,
}  # fmt: skip
EXITS, PRUNE = Setting(retention=0.35, exits=True), Setting(retention=0.35)


def counters(exit=0, prune=0, bypass=0, kept=0, scores=0, seconds=0.0, hits=0):
    """What a server says, in Prometheus' form."""
    guided = exit + prune
    return Scrape(
        f"""\
# TYPE sgl:requests counter
sgl:requests_total{{decision="exit",reason=""}} {exit}
sgl:requests_total{{decision="prune",reason="low_score"}} {prune}
sgl:requests_total{{decision="bypass",reason="retention_1_without_exit"}} {bypass}
# TYPE sgl:visual_tokens counter
sgl:visual_tokens_total{{kind="kept"}} {kept}
sgl:visual_tokens_total{{kind="seen"}} 99999
# TYPE sgl:tiles counter
sgl:tiles_total{{kind="seen"}} {10 * (guided + bypass)}
sgl:tiles_total{{kind="encoded"}} {4 * prune + 10 * bypass}
# TYPE sgl:guide_seconds histogram
sgl:guide_seconds_sum {seconds}
sgl:guide_seconds_count {guided}
# TYPE sgl:score histogram
sgl:score_sum 1
sgl:score_count {scores}
# TYPE vllm:prefix_cache_queries counter
vllm:prefix_cache_queries_total{{engine="0"}} 200
# TYPE vllm:prefix_cache_hits counter
vllm:prefix_cache_hits_total{{engine="0"}} {hits}
"""
    )


PICTURES = replace(
    PRESETS["quick"], asked=Pictures((9, 9), 1792, 8), loads={2: 4}, retentions=(1.0, 0.35), rounds=1
)
REQUESTS = [Request([], 1792, 8)] * 4


def reading(setting, after, before=None, preset=PICTURES, requests=REQUESTS, **changes):
    return read(Step(0, 2, 0, setting), RESULT | changes, before or Scrape(""), after, requests, preset)


def test_a_load_with_exits():
    before = counters(exit=5, prune=1, kept=627, scores=6, seconds=1.0)
    after = counters(exit=6, prune=4, kept=4 * 627, scores=9, seconds=3.0, hits=0)
    run = reading(EXITS, after, before)
    assert (run.exit_share, run.scored_share, run.kept_tokens, run.guide_seconds) == (0.25, 0.75, 627, 0.5)
    assert run.encoded_share == 0.3
    assert (run.throughput, run.ttft_median, run.ttft_p99) == (2.5, 0.1, 0.2)
    assert (run.e2e_median, run.e2e_p99, run.requests, run.first, run.right) == (0.3, 0.4, 4, 0, None)


def test_plain():
    run = reading(PLAIN, counters(hits=50))
    assert (run.exit_share, run.kept_tokens, run.guide_seconds, run.cached_share) == (0, None, None, 0.25)
    assert run.encoded_share is None


def test_all_exit():
    run = reading(EXITS, counters(exit=4, scores=4))
    assert (run.exit_share, run.kept_tokens) == (1, None)


@pytest.mark.parametrize(
    ("setting", "after", "changes"),
    [
        (EXITS, counters(prune=4, kept=4 * 627), {"completed": 3}),
        (EXITS, counters(prune=4, kept=4 * 627), {"failed": 1}),
        (EXITS, counters(prune=4, kept=4 * 627), {"total_output_tokens": 31}),
        (EXITS, counters(prune=4, kept=4 * 627 - 1), {}),
        (EXITS, counters(prune=3, bypass=1, kept=3 * 627 + 1792), {}),
        (EXITS, counters(prune=3, kept=3 * 627), {}),
        (Setting(), counters(prune=4, kept=4 * 1792), {}),
        (PLAIN, counters(prune=4, kept=4 * 627), {}),
        (DEFAULT, counters(bypass=4, kept=4 * 1792), {}),
    ],
    ids=[
        "unanswered",
        "failed",
        "short",
        "kept",
        "fallback",
        "uncounted",
        "guided",
        "not plain",
        "not plain either",
    ],
)
def test_a_load_that_went_another_way_has_no_figures(setting, after, changes):
    assert reading(EXITS, counters(prune=4, kept=4 * 627)).kept_tokens == 627
    with pytest.raises(BenchmarkError):
        reading(setting, after, **changes)


SIGNS = replace(PICTURES, asked=Signs())
ANSWERS = {160: "417", 208: "6", 176: "3", 161: "9"}
QUESTIONS = [Request([], tokens, 4, (answer,)) for tokens, answer in ANSWERS.items()]


def test_questions_with_answers_of_their_own_length():
    """Tokens of the answers are not counted; what the answers are worth is."""
    each = [kept_count(0.35, tokens) for tokens in ANSWERS]
    after = counters(prune=4, kept=sum(each))
    run = reading(PRUNE, after, preset=SIGNS, requests=QUESTIONS, total_output_tokens=9)
    assert run.right == (1, 0, 0, 0)
    with pytest.raises(BenchmarkError, match=f"expected {sum(each)} to {sum(each)} kept tokens"):
        reading(PRUNE, counters(prune=4, kept=sum(each) + 1), preset=SIGNS, requests=QUESTIONS)


def test_a_policy_of_few_tiles_may_keep_fewer():
    each = [kept_count(0.35, tokens) for tokens in ANSWERS]
    few = replace(PRUNE, policy="tiles")
    for kept in (len(each), sum(each) - 32, sum(each)):
        found = counters(prune=4, kept=kept)
        assert reading(few, found, preset=SIGNS, requests=QUESTIONS).kept_tokens == kept / 4
    for kept in (len(each) - 1, sum(each) + 1):
        with pytest.raises(BenchmarkError, match=f"expected 4 to {sum(each)} kept tokens"):
            reading(few, counters(prune=4, kept=kept), preset=SIGNS, requests=QUESTIONS)


def test_where_some_exit_nobody_knows_which():
    least, most = 56 + 56, 72 + 61
    for kept in (least, most):
        found = counters(exit=2, prune=2, kept=kept)
        assert reading(EXITS, found, preset=SIGNS, requests=QUESTIONS).kept_tokens == kept / 2
    for kept in (least - 1, most + 1):
        with pytest.raises(BenchmarkError, match="expected 112 to 133 kept tokens"):
            reading(EXITS, counters(exit=2, prune=2, kept=kept), preset=SIGNS, requests=QUESTIONS)


USAGE = {"prompt_tokens": 200, "completion_tokens": 4}


def reply(text="same", usage=USAGE, **sgl):
    return Reply(1.0, text, usage, sgl or None)


@pytest.mark.parametrize(
    ("setting", "found", "wrong"),
    [
        (Setting(), reply(decision="bypass", visual_tokens=112, kept_tokens=112), 0),
        (Setting(exits=True), reply(decision="prune", visual_tokens=112, kept_tokens=112), 0),
        (PRUNE, reply("other", decision="prune", visual_tokens=112, kept_tokens=39), 0),
        (Setting(exits=True), reply("other", decision="prune", visual_tokens=112, kept_tokens=112), 1),
        (Setting(exits=True), reply(decision="bypass", visual_tokens=112, kept_tokens=112), 1),
        (PRUNE, reply(decision="prune", visual_tokens=112, kept_tokens=40), 1),
        (Setting(), reply(), 1),
        (Setting(), reply(usage={}, decision="bypass", visual_tokens=112, kept_tokens=112), 1),
    ],
)
def test_answers_must_be_those_of_plain_vllm(setting, found, wrong):
    assert len(differences(setting, found, reply(), 112, fixed_length=True)) == wrong


def test_a_pruned_answer_may_have_another_length_where_answers_end_by_themselves():
    sgl = {"decision": "prune", "visual_tokens": 112, "kept_tokens": 39}
    shorter = reply("5", {"prompt_tokens": 200, "completion_tokens": 2}, **sgl)
    assert not differences(PRUNE, shorter, reply(), 112, fixed_length=False)
    assert differences(PRUNE, shorter, reply(), 112, fixed_length=True)
    other = reply("5", {"prompt_tokens": 199, "completion_tokens": 4}, **sgl)
    assert differences(PRUNE, other, reply(), 112, fixed_length=False)


def test_requests_that_find_no_room_in_the_guide_are_counted_and_whole():
    after = Scrape(
        f"""\
# TYPE sgl:requests counter
sgl:requests_total{{decision="prune",reason=""}} 3
sgl:requests_total{{decision="bypass",reason="guide_busy"}} 1
# TYPE sgl:visual_tokens counter
sgl:visual_tokens_total{{kind="kept"}} {3 * 627 + 1792}
"""
    )
    run = reading(PRUNE, after)
    assert (run.busy_share, run.kept_tokens) == (0.25, (3 * 627 + 1792) / 4)


def test_another_layout_must_answer_alike():
    same([reply(), reply()], [reply(), reply()])
    with pytest.raises(BenchmarkError, match="'other', plain vLLM 'same'"):
        same([reply(), reply("other")], [reply(), reply()])


def test_a_model_that_does_not_read_has_no_figures():
    right(QUESTIONS, [reply("417"), reply("6"), reply("3"), reply("no")])
    with pytest.raises(BenchmarkError, match="2 of 4 questions right"):
        right(QUESTIONS, [reply("417"), reply("6"), reply("no"), reply("no")])
