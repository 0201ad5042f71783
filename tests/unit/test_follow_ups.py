"""What becomes of requests about images that the large model was given before, over a fake guide."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace as Place

import pytest
import torch

from tests.unit.test_pipeline import FakeGuide, answer
from vllm_sgl.config import SGLConfig
from vllm_sgl.core import Facts, GuideRequest, GuideResult, Reason, VisualItem
from vllm_sgl.decide.costs import Costs
from vllm_sgl.decide.follow_ups import FollowUps
from vllm_sgl.errors import GuideError
from vllm_sgl.pipeline import Pipeline
from vllm_sgl.prune.memory import Memory
from vllm_sgl.prune.registry import policy
from vllm_sgl.request.options import RequestOptions

VISUAL, HEADER = 20, 99


class Guide(FakeGuide):
    """Finds the visual tokens important that a question's last token names, of every image."""

    async def look(self, request, answer_tokens):
        if self.fails:
            raise self.fails
        self.calls.append(request.prompt["prompt_token_ids"][-1])
        importance = torch.ones(VISUAL)
        importance[self.calls[-1] :][:7] = 100
        return GuideResult([importance] * len(request.items), self.answer)


def rewrite(prompt, kept, late):
    return [part.tolist() for part in kept], [(one.number, one.at, one.indices.tolist()) for one in late]


class Chat:
    """A server's pipeline, and questions to it. Images are of 20 visual tokens, questions of one token: the
    number of the visual token from which on seven are important."""

    def __init__(self, *, costs=None, hot_after="auto", guide=None, block_size=2, **settings):
        self.guide = guide or Guide()
        self.config = SGLConfig(small="s", **settings)
        follow_ups = FollowUps(Memory(), block_size, self.last_turn, hot_after, costs)
        self.pipeline = Pipeline(self.config, self.guide, policy, rewrite, costs, follow_ups=follow_ups)

    @staticmethod
    def last_turn(prompt):
        ids = prompt["prompt_token_ids"]
        return len(ids) - ids[::-1].index(HEADER) if HEADER in ids else None

    def ask(self, *parts, **asked):
        return asyncio.run(self.asked(*parts, **asked))

    def asked(self, *parts, salt=None, forced=None, **keys):
        """parts: token ids, and images by name."""
        ids, places, hashes = [], [], []
        for part in parts:
            if isinstance(part, str):
                places.append(Place(offset=len(ids), length=VISUAL))
                hashes.append(part)
            ids += [-1] * VISUAL if isinstance(part, str) else [part]
        prompt = {
            "prompt_token_ids": ids, "mm_placeholders": {"image": places}, "mm_hashes": {"image": hashes},
            "cache_salt": salt,
        }  # fmt: skip
        items = tuple(VisualItem("image", VISUAL, tile_tokens=5) for _ in places)
        options = RequestOptions.parse({f"sgl_{key}": value for key, value in keys.items()}, self.config)
        request = GuideRequest("r", prompt, items, None, 8, options.query_rows)
        facts = Facts((VISUAL,) * len(items), len(ids), 8, tiles=4 * len(items), items=items, no_exit=forced)
        return self.pipeline.walk(request, facts, options)

    def reports(self, *asked, **keys):
        found = [self.ask(*one, **keys).report for one in asked]
        return [
            (one.decision, one.reason, one.kept_tokens, one.reused_tokens, one.late_tokens) for one in found
        ]


FIRST, SECOND = (HEADER, "a", 3), (HEADER, "a", 3, 50, HEADER, 9)
THIRD = (*SECOND, 50, HEADER, 3)


def test_a_chat_keeps_what_its_first_question_kept():
    chat = Chat()
    first, second = chat.ask(*FIRST), chat.ask(*SECOND)
    assert (first.report.decision, first.report.reason) == ("prune", None)
    assert second.prompt == first.prompt == ([list(range(3, 10))], [])
    assert (second.report.decision, second.report.reason) == ("prune", "follow_up")
    assert (second.report.kept_tokens, second.report.reused_tokens, second.report.late_tokens) == (7, 7, 0)
    assert (second.report.encoded_tiles, second.max_tokens) == (2, 8)
    assert second.report.guide_seconds is None
    assert chat.guide.calls == [3]


def test_late_tokens_stand_in_front_of_the_new_question():
    chat = Chat(retention=0.1)  # two of twenty
    kept = [chat.ask(*one).prompt for one in (FIRST, SECOND, THIRD)]
    assert kept == [
        ([[3, 4]], []), ([[3, 4]], [(0, 24, [9])]), ([[3, 4]], [(0, 24, [9])]),
    ]  # fmt: skip
    assert chat.guide.calls == [3, 9, 3]
    assert chat.reports(FIRST, SECOND, THIRD) == [
        ("prune", "follow_up", 2, 2, 0), ("prune", "follow_up", 3, 3, 0), ("prune", "follow_up", 3, 3, 0),
    ]  # fmt: skip
    assert chat.guide.calls == [3, 9, 3]  # the same questions again


def test_separate_questions_about_an_image_have_them_behind_it():
    chat = Chat(retention=0.1)
    assert [chat.ask(HEADER, "a", number).prompt for number in (3, 9)] == [
        ([[3, 4]], []), ([[3, 4]], [(0, 21, [9])]),
    ]  # fmt: skip


def test_late_tokens_of_which_nobody_knows_where_they_go():
    """A prompt without messages goes on: its image has the mask of the new question."""
    chat = Chat(retention=0.1)
    assert [chat.ask("a", 3).prompt, chat.ask("a", 3, 4, 9).prompt] == [([[3, 4]], []), ([[9, 10]], [])]


@pytest.mark.parametrize("keys", [{"follow_ups": "off"}, {"salt": "other"}, {"retention": 0.5}])
def test_who_is_decided_alone(keys):
    chat = Chat()
    chat.ask(*FIRST)
    assert chat.ask(*SECOND, **keys).report.reused_tokens == 0
    assert chat.guide.calls == [3, 9]


def test_requests_that_want_none_are_not_remembered():
    chat = Chat()
    chat.ask(*FIRST, follow_ups="off")
    assert chat.ask(*SECOND).report.reused_tokens == 0


def test_a_shadow_remembers_nothing():
    chat = Chat(shadow=True)
    assert chat.reports(FIRST, SECOND) == [("prune", None, 7, 0, 0)] * 2


def test_what_went_unpruned_stays_unpruned():
    chat = Chat()
    chat.ask(*FIRST, enabled=0)
    assert chat.reports(SECOND) == [("bypass", "follow_up", 20, 20, 0)]
    assert chat.reports((HEADER, "a", 9)) == [("bypass", "hot_image", 20, 20, 0)]
    assert chat.guide.calls == []


def test_a_new_image_has_its_own_share():
    chat = Chat()
    chat.ask(*FIRST)
    outcome = chat.ask(*FIRST, 50, HEADER, "b", 9)
    assert outcome.prompt == ([list(range(3, 10)), list(range(9, 16))], [])
    assert (outcome.report.reason, outcome.report.kept_tokens, outcome.report.reused_tokens) == (None, 14, 7)
    whole = Chat()
    whole.ask(*FIRST, enabled=0)
    outcome = whole.ask(*FIRST, 50, HEADER, "b", 9)
    assert outcome.prompt == ([list(range(20)), list(range(9, 16))], [])


def test_a_turn_that_exited_is_not_remembered():
    chat = Chat(exit_threshold=0.1)
    assert chat.reports(FIRST) == [("exit", None, 0, 0, 0)]
    assert chat.reports(SECOND, exit_threshold=1) == [("prune", "low_confidence", 7, 0, 0)]


def test_where_an_exit_is_possible_the_guide_is_asked():
    chat = Chat(exit_threshold=0.7)
    assert chat.reports(FIRST, SECOND) == [
        ("prune", "low_score", 7, 0, 0), ("prune", "low_score", 7, 7, 0),
    ]  # fmt: skip
    assert [call for call in chat.guide.calls if isinstance(call, int)] == [3, 9]
    assert chat.reports(THIRD, forced=Reason.N) == [("prune", "follow_up", 7, 7, 0)]


def test_an_exit_that_saves_less_than_a_look_costs_is_not_tried():
    """Twelve tokens are new, at a millisecond each; without them the large model computes 23."""
    costs = Costs(guide=(0.015, 0.0), decode=0.0, prefill=((0, 0.0), (1000, 1.0)))
    chat = Chat(exit_threshold=0.7, costs=costs)
    assert chat.reports((HEADER, "a", 3), (HEADER, "a", 3, *[50] * 11, 9)) == [
        ("prune", "low_score", 7, 0, 0), ("prune", "follow_up", 7, 7, 0),
    ]  # fmt: skip


@pytest.mark.parametrize("retention", [0.1, 0.35])
def test_a_follow_up_that_the_guide_cannot_take_goes_on(retention):
    chat = Chat(retention=retention, guide=Guide(context=30))
    first = chat.ask(*FIRST)
    later = chat.ask(*SECOND, *[50] * 9, HEADER, 9)
    assert later.prompt == first.prompt
    assert later.report.reason == ("follow_up" if retention == 0.35 else "too_long_for_small")
    chat.guide.context, chat.guide.fails = 1000, GuideError(Reason.GUIDE_DEAD, "dead")
    failed = chat.ask(*SECOND)
    assert failed.prompt == first.prompt
    assert failed.report.reason == ("follow_up" if retention == 0.35 else "guide_dead")


SEPARATE = [(HEADER, "a", number) for number in (1, 9, 2, 8, 3)]


def test_an_image_of_many_questions_is_sent_unpruned():
    found = Chat(retention=0.1).reports(*SEPARATE)
    assert [one[:2] for one in found] == [
        ("prune", None), ("prune", "follow_up"), *[("bypass", "hot_image")] * 3,
    ]  # fmt: skip
    assert [one[3] for one in found] == [0, 2, 0, 20, 20]


@pytest.mark.parametrize(
    ("hot_after", "retention", "looks"),
    [(1, 0.1, 1), (3, 0.1, 3), (None, 0.1, 5), ("auto", 0.35, 5), (4, 0.35, 4)],
)
def test_after_how_many(hot_after, retention, looks):
    found = Chat(retention=retention, hot_after=hot_after).reports(*SEPARATE)
    assert [one[0] for one in found] == ["prune"] * looks + ["bypass"] * (5 - looks)


def test_after_as_many_looks_as_cost_what_the_image_does():
    """22 ms for the whole prompt; a look takes 6 ms of them, so the fourth has paid for it."""
    costs = Costs(guide=(0.006, 0.0), decode=0.0, prefill=((0, 0.0), (1000, 1.0)))
    found = Chat(retention=0.1, costs=costs).reports(*SEPARATE)
    assert [one[0] for one in found] == ["prune"] * 3 + ["bypass"] * 2


def test_turns_of_a_chat_are_no_separate_questions():
    chat, asked = Chat(retention=0.1), [*FIRST]
    for number in (9, 2, 8, 3):
        assert chat.ask(*asked).report.decision == "prune"
        asked += [50, HEADER, number]


def test_what_the_prefix_cache_lost_is_forgotten():
    chat = Chat(retention=0.1)
    for one in SEPARATE[:3]:
        chat.ask(*one)
    hot = chat.ask(*SEPARATE[3])
    hot.heard(20)  # still there
    assert chat.ask(*SEPARATE[4]).report.reason == "hot_image"
    hot.heard(0)
    assert chat.ask(HEADER, "a", 7).report.reason != "hot_image"


def test_a_first_question_hears_nothing():
    assert Chat().ask(*FIRST).heard is None


def test_late_tokens_need_a_question_that_looks_elsewhere():
    """Of the two tokens that it needs one is there already, and holds nearly all of their importance."""
    chat = Chat(retention=0.1)

    class Steady(Guide):
        async def look(self, request, answer_tokens):
            result = await super().look(request, answer_tokens)
            importance = torch.ones(VISUAL)
            importance[3] = 1000
            importance[4 + len(self.calls)] = 2
            return replace(result, importance=[importance])

    chat.pipeline._guide = Steady(answer())
    kept = [chat.ask(*one).prompt for one in (FIRST, SECOND)]
    assert kept == [([[3, 5]], [])] * 2


@pytest.mark.parametrize(("keys", "looks"), [({}, 1), ({"retention": 0.1}, 3), ({"exit_threshold": 1}, 3)])
async def test_questions_that_come_at_once(keys, looks):
    """Those that would keep what the first one keeps wait for it; those that are looked at anyway do not."""
    chat = Chat()
    look, chat.guide.most = chat.guide.look, 0

    async def slow(request, tokens):
        chat.guide.most += 1
        await asyncio.sleep(0.01)
        return await look(request, tokens)

    chat.guide.look = slow
    found = await asyncio.gather(*(chat.asked(HEADER, "a", number, **keys) for number in (3, 9, 5)))
    assert chat.guide.most == looks
    if looks == 1:
        assert [one.report.reason for one in found] == [None, "follow_up", "follow_up"]
        assert found[0].prompt == found[1].prompt == found[2].prompt


async def test_who_waits_goes_on_when_the_first_one_is_gone():
    chat, look = Chat(), None

    async def forever(request, tokens):
        await asyncio.sleep(60)

    look, chat.guide.look = chat.guide.look, forever
    first, second = (asyncio.create_task(chat.asked(HEADER, "a", number)) for number in (3, 9))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    chat.guide.look = look
    first.cancel()
    assert (await second).report.reason is None
    with pytest.raises(asyncio.CancelledError):
        await first
