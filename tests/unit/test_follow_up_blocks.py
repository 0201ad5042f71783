"""What the blocks of the prefix cache mean for follow-ups."""

import pytest
from vllm.outputs import CompletionOutput, RequestOutput

from tests.unit.test_follow_ups import FIRST, HEADER, SECOND, SEPARATE, Chat
from vllm_sgl.decide.costs import Costs
from vllm_sgl.engine.client import _has_looked_up


@pytest.mark.parametrize("retention", [0.1, 0.35])
def test_what_fills_no_block_is_decided_afresh(retention):
    """Nothing of 20 visual tokens and two others is in a cache with blocks of 40 tokens."""
    chat = Chat(retention=retention, block_size=40)
    assert {one[1:2] + one[3:] for one in chat.reports(*SEPARATE)} == {(None, 0, 0)}
    assert len(chat.guide.calls) == len(SEPARATE)


def test_an_unpruned_image_that_fills_no_block_is_decided_afresh():
    chat = Chat(block_size=40)
    chat.ask(*FIRST, enabled=0)
    assert chat.ask(*SECOND).report.decision == "prune"


def test_a_hot_image_fills_a_block_where_its_mask_does_not():
    found = Chat(retention=0.1, block_size=20).reports(*SEPARATE)
    assert [one[1] for one in found] == [None, None, *["hot_image"] * 3]


def test_an_exit_saves_the_prefill_of_a_hot_image_that_is_not_cached_yet():
    """22 ms the first time, one when it is cached; a look takes 6 ms."""
    costs = Costs(guide=(0.006, 0.0), decode=0.0, prefill=((0, 0.0), (1000, 1.0)))
    chat = Chat(retention=0.1, hot_after=1, exit_threshold=0.99, costs=costs)
    chat.ask(*FIRST)
    looks = len(chat.guide.calls)
    assert chat.ask(HEADER, "a", 9).report.kept_tokens == 20
    assert len(chat.guide.calls) > looks
    looks = len(chat.guide.calls)
    assert chat.ask(HEADER, "a", 5).report.reason == "hot_image"
    assert len(chat.guide.calls) == looks


@pytest.mark.parametrize(("reason", "told"), [(None, True), ("stop", True), ("abort", False)])
def test_an_aborted_request_says_nothing_about_the_prefix_cache(reason, told):
    text = CompletionOutput(0, "", [], None, None, finish_reason=reason)
    assert _has_looked_up(RequestOutput("a", None, [1], None, [text], True, num_cached_tokens=0)) == told
