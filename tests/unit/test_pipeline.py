"""Who goes where: the walk of a request over a fake guide and a fake rewriter."""

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from vllm_sgl.config import SGLConfig
from vllm_sgl.core import Answer, Facts, GuideResult, Reason, VisualItem
from vllm_sgl.decide.costs import Costs
from vllm_sgl.errors import Unguidable
from vllm_sgl.pipeline import Pipeline
from vllm_sgl.prune.registry import policy
from vllm_sgl.request.options import RequestOptions

IMPORTANCE = [torch.tensor([1.0, 4.0, 3.0, 2.0]), torch.tensor([9.0, 0.0])]
HALF = [[1, 2], [0]]


def answer(probability=0.5, finished=True):
    logprob = math.log(probability)
    return Answer("yes", (7, 2), (logprob, logprob), finished, "stop" if finished else "length")


@dataclass(frozen=True)
class Request:
    prompt: Any = "prompt"
    id: str = "r1"
    priority: int = 5
    items: tuple = (VisualItem("image", 4, tile_tokens=2), VisualItem("image", 2))


@dataclass
class FakeGuide:
    answer: Answer = field(default_factory=answer)
    agreement: float = 0.5
    context: int = 1024
    fails: BaseException | None = None
    confirm_fails: BaseException | None = None
    alive: bool = True
    importance: list = field(default_factory=lambda: IMPORTANCE)
    calls: list = field(default_factory=list)

    async def look(self, request, answer_tokens):
        self.calls.append(("look", request.prompt, answer_tokens))
        if self.fails:
            raise self.fails
        return GuideResult(self.importance, self.answer)

    async def confirm(self, request, result, share):
        self.calls.append(("confirm", request.id, request.prompt, result.answer.token_ids, share))
        if self.confirm_fails:
            raise self.confirm_fails
        return self.agreement


def fake_rewrite(prompt, kept, late=()):
    return ("pruned", prompt, [part.tolist() for part in kept])


FACTS = Facts(visual_tokens=(4, 2), tiles=3, prompt_tokens=20, max_tokens=8)


def walking(
    guide=None, facts=FACTS, request=None, server=None, costs=None, sees=None, policies=policy, **asked
):
    config = SGLConfig(small="s", **{"retention": 0.5, **(server or {})})
    options = RequestOptions.parse({f"sgl_{key}": value for key, value in asked.items()}, config)
    pipeline = Pipeline(config, guide or FakeGuide(), policies, fake_rewrite, costs, sees)
    return pipeline.walk(request or Request(), facts, options)


def walk(*asked, **named):
    return asyncio.run(walking(*asked, **named))


def test_prune_is_what_happens_by_default():
    guide = FakeGuide()
    outcome = walk(guide)
    assert outcome.answer is None
    assert outcome.prompt == ("pruned", "prompt", HALF)
    assert outcome.max_tokens == 8  # the room that the unpruned prompt leaves
    report = outcome.report
    assert (report.decision, report.reason, report.visual_tokens, report.kept_tokens) == ("prune", None, 6, 3)
    assert (report.tiles, report.encoded_tiles) == (3, 3)
    assert report.confidence == pytest.approx(0.5)
    assert report.score is report.consistency is None
    assert report.importance is IMPORTANCE
    assert [part.tolist() for part in report.kept] == HALF
    assert report.guide_seconds > 0
    assert guide.calls == [("look", "prompt", 8)]


@pytest.mark.parametrize("server", [{}, {"on_error": "fail"}])
def test_a_request_that_is_none_for_the_guide_is_left_alone(server):
    outcome = walk(FakeGuide(fails=Unguidable(Reason.NO_CONVERSATION)), server=server)
    assert (outcome.report.decision, outcome.report.reason) == ("bypass", "no_conversation")
    assert outcome.report.kept_tokens == outcome.report.visual_tokens == 6
    assert outcome.report.guide_seconds is None
    assert outcome.prompt is outcome.answer is None


#: 2 ms for a guide pass; prefill 1 ms per token: 3 of 6 visual tokens saved pay for it, 1 does not.
COSTS = Costs(guide=(0.002, 0.0), decode=0.0, prefill=((0, 0.0), (1000, 1.0)))


def test_a_request_whose_guidance_does_not_pay_is_left_alone():
    guide = FakeGuide()
    outcome = walk(guide, costs=COSTS, retention=0.9)
    assert outcome.report.reason == Reason.BREAK_EVEN
    assert (outcome.report.decision, outcome.report.reason) == ("bypass", "below_break_even")
    assert outcome.report.kept_tokens == outcome.report.visual_tokens == 6
    assert outcome.prompt is None
    assert guide.calls == []


@pytest.mark.parametrize("asked", [{"retention": 0.5}, {"retention": 0.9, "exit_threshold": 0.9}])
def test_a_request_whose_guidance_pays_is_guided(asked):
    assert walk(costs=COSTS, **asked).report.decision == "prune"


@pytest.mark.parametrize(("seen", "decision"), [(6, "bypass"), (2, "prune")])
def test_a_guide_that_sees_less_pays_earlier(seen, decision):
    """At 1 ms for each of its own visual tokens, for 3 ms saved."""
    costs = Costs(guide=(0.0, 0.001), decode=0.0, prefill=COSTS.prefill)
    assert walk(costs=costs).report.decision == "bypass"
    assert walk(costs=costs, sees=lambda request: seen).report.decision == decision


def test_an_exit_that_the_request_rules_out_saves_nothing():
    facts = Facts(visual_tokens=(4, 2), prompt_tokens=20, max_tokens=8, no_exit=Reason.N)
    outcome = walk(facts=facts, costs=COSTS, retention=0.9, exit_threshold=0.9)
    assert outcome.report.reason == Reason.BREAK_EVEN


def test_other_reasons_come_before_the_costs():
    assert walk(costs=COSTS, retention=0.9, enabled=0).report.reason == Reason.DISABLED


@pytest.mark.parametrize(
    ("rows", "threshold", "tokens"),
    [
        ("prompt", "off", 1),
        ("last_prompt", "off", 1),
        ("prompt", 0.9, 32),
        ("generated", 0.9, 32),
        ("generated", "off", 8),
        ("prompt+generated", "off", 8),
    ],
)
def test_an_answer_is_as_long_as_it_is_needed(rows, threshold, tokens):
    guide = FakeGuide()
    walk(guide, query_rows=rows, exit_threshold=threshold)
    assert guide.calls[0] == ("look", "prompt", tokens)


@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.5])
def test_exit_at_or_above_the_threshold(threshold):
    guide = FakeGuide()
    outcome = walk(guide, exit_threshold=threshold)
    assert outcome.answer is guide.answer
    report = outcome.report
    assert (report.decision, report.reason, report.visual_tokens, report.kept_tokens) == ("exit", None, 6, 0)
    assert (report.score, report.consistency) == (pytest.approx(0.5), 0.5)
    assert report.kept is None


def test_consistency_pass_has_a_retention_of_its_own():
    guide = FakeGuide()
    walk(guide, server={"consistency_retention": 0.2}, exit_threshold=0.5)
    assert guide.calls[1] == ("confirm", "r1", "prompt", (7, 2), 0.2)


def test_low_score_prunes():
    outcome = walk(FakeGuide(agreement=0.1), exit_threshold=0.31)
    assert (outcome.report.decision, outcome.report.reason) == ("prune", Reason.LOW_SCORE)
    assert outcome.report.score == pytest.approx(0.3)
    assert outcome.report.kept_tokens == 3


def test_unfinished_answer_prunes_without_a_consistency_pass():
    guide = FakeGuide(answer=answer(finished=False))
    outcome = walk(guide, exit_threshold=0.0)
    assert (outcome.report.decision, outcome.report.reason) == ("prune", Reason.UNFINISHED)
    assert len(guide.calls) == 1


def test_hopeless_confidence_prunes_without_a_consistency_pass():
    guide = FakeGuide(answer=answer(0.3))
    outcome = walk(guide, exit_threshold=0.66)
    assert (outcome.report.decision, outcome.report.reason) == ("prune", Reason.LOW_CONFIDENCE)
    assert len(guide.calls) == 1


NO_EXIT = (Reason.N, Reason.LOGPROBS, Reason.TOOLS, Reason.STRUCTURED_OUTPUT, Reason.LORA)


@pytest.mark.parametrize("reason", NO_EXIT)
def test_request_that_rules_an_exit_out_is_pruned(reason):
    guide = FakeGuide()
    outcome = walk(guide, Facts((4, 2), 20, 8, no_exit=reason), exit_threshold=0.0)
    assert (outcome.report.decision, outcome.report.reason) == ("prune", reason)
    assert outcome.prompt == ("pruned", "prompt", HALF)
    assert len(guide.calls) == 1


@pytest.mark.parametrize("reason", NO_EXIT)
def test_no_reason_is_told_where_no_exit_was_asked_for(reason):
    assert walk(facts=Facts((4, 2), 20, 8, no_exit=reason)).report.reason is None


BYPASS = [
    (Reason.NO_IMAGE, Facts(bypass=Reason.NO_IMAGE), {}),
    (Reason.IMAGE_EMBEDDINGS, Facts((4,), 9, bypass=Reason.IMAGE_EMBEDDINGS), {}),
    (Reason.UNSUPPORTED_MODALITY, Facts(bypass=Reason.UNSUPPORTED_MODALITY), {}),
    (Reason.PROMPT_LOGPROBS, Facts((4,), 9, bypass=Reason.PROMPT_LOGPROBS), {}),
    (Reason.BEAM_SEARCH, Facts((4,), 9, bypass=Reason.BEAM_SEARCH), {}),
    (Reason.TOO_LONG, Facts((4, 2), 1023), {}),
    (Reason.DISABLED, FACTS, {"enabled": 0}),
    (Reason.NOTHING_TO_DO, FACTS, {"retention": 1.0}),
    (Reason.NOTHING_TO_DO, Facts((4, 2), 20, no_exit=Reason.N), {"retention": 1, "exit_threshold": 0.1}),
]


@pytest.mark.parametrize(("reason", "facts", "asked"), BYPASS, ids=[row[0] for row in BYPASS])
def test_bypassed_request_never_reaches_the_guide(reason, facts, asked):
    guide = FakeGuide()
    outcome = walk(guide, facts, **asked)
    assert outcome.prompt is outcome.answer is None
    assert (outcome.report.decision, outcome.report.reason) == ("bypass", reason)
    assert outcome.report.visual_tokens == outcome.report.kept_tokens == sum(facts.visual_tokens)
    assert outcome.report.guide_seconds is None
    assert guide.calls == []


def test_bypass_needs_no_guide_request():
    """The server makes none for a prompt that it cannot read."""
    config = SGLConfig(small="s")
    pipeline = Pipeline(config, FakeGuide(), policy, fake_rewrite)
    facts = Facts(bypass=Reason.UNRENDERED_PROMPT)
    outcome = asyncio.run(pipeline.walk(None, facts, RequestOptions.parse(None, config)))
    assert (outcome.report.reason, outcome.prompt) == (Reason.UNRENDERED_PROMPT, None)


@pytest.mark.parametrize("policy", ["top", "tiles", "tiles:0.1"])
def test_full_retention_still_exits_but_never_prunes(policy):
    exits = walk(retention=1.0, exit_threshold=0.5, policy=policy)
    assert exits.report.decision == "exit"
    stays = walk(FakeGuide(agreement=0.0), retention=1.0, exit_threshold=0.5, policy=policy)
    assert stays.report.decision == "prune"
    assert stays.prompt is None  # nothing was rewritten
    assert (stays.report.visual_tokens, stays.report.kept_tokens, stays.report.encoded_tiles) == (6, 6, 3)


@pytest.mark.parametrize("asked", [{}, {"exit_threshold": 0.0}], ids=["prune", "exit"])
def test_shadow_decides_and_reports_but_leaves_the_prompt_alone(asked):
    plain, shadow = walk(**asked), walk(server={"shadow": True}, **asked)
    assert shadow.prompt is shadow.answer is None
    assert shadow.report.decision == plain.report.decision
    assert shadow.report.kept_tokens == plain.report.kept_tokens
    assert shadow.report.score == plain.report.score


#: What the log has of a request that fails so: states of the guide are logged where they begin.
@pytest.mark.parametrize(
    ("policy", "retention", "encoded"), [("top", 0.2, 1), ("top", 0.35, 2), ("tiles:0.2", 0.35, 1)]
)
def test_report_counts_the_tiles_of_which_something_is_kept(policy, retention, encoded):
    """Tiles of two tokens, 1 and 4, 3 and 2; and an image of 9 and 0, which is encoded as a whole."""
    report = walk(policy=policy, retention=retention).report
    assert (report.tiles, report.encoded_tiles) == (3, encoded)


def test_an_exit_encodes_nothing_and_a_bypass_everything():
    exits, bypassed = walk(exit_threshold=0.0).report, walk(enabled=0).report
    assert (exits.tiles, exits.encoded_tiles) == (3, 0)
    assert (bypassed.tiles, bypassed.encoded_tiles) == (3, 3)


def test_request_overrides_the_servers_settings():
    guide = FakeGuide()
    outcome = walk(
        guide, server={"exit_threshold": 0.9, "guide_tokens": 4}, exit_threshold="off", guide_tokens=5
    )
    assert (outcome.report.decision, outcome.report.reason) == ("prune", None)
    assert guide.calls == [("look", "prompt", 5)]
