"""Who goes where: every row of the contract's table, seen by a client."""

import base64
import io
import json

import pytest
import torch

from tests.serve.asking import (
    EMPTY,
    LONG,
    ROW_TOKENS,
    SCHEMA,
    SHORT,
    TOOLS,
    VISUAL,
    ask,
    large_pruned,
    small_alone,
    text,
)
from tests.serve.conftest import SMALL_CONTEXT

FIELDS = {
    "decision", "reason", "visual_tokens", "kept_tokens", "tiles", "encoded_tiles", "reused_tokens",
    "late_tokens", "score", "confidence", "consistency", "guide_seconds", "profile",
}  # fmt: skip


def assert_bypassed(completion, reason, visual_tokens):
    assert completion.sgl == {
        "decision": "bypass", "reason": reason, "visual_tokens": visual_tokens,
        "kept_tokens": visual_tokens, "tiles": visual_tokens // 16, "encoded_tiles": visual_tokens // 16,
        "reused_tokens": 0, "late_tokens": 0, "score": None, "confidence": None, "consistency": None,
        "guide_seconds": None, "profile": None,
    }  # fmt: skip


@pytest.mark.parametrize("question", ["What is on the sign?", "Is the door open?", "Who?"])
def test_pruned_request_is_the_large_models_answer_on_what_the_small_one_keeps(server, qwen2_pair, question):
    completion = ask(server, question, 1)
    expected = small_alone(qwen2_pair[0], question, 1, ROW_TOKENS)
    assert set(completion.sgl) == FIELDS
    assert completion.sgl["decision"] == "prune"
    assert completion.sgl["reason"] is None
    assert completion.sgl["kept_tokens"] == 39
    assert completion.sgl["tiles"] == 7
    assert 3 <= completion.sgl["encoded_tiles"] <= 7  # of 16 tokens each
    assert completion.sgl["confidence"] == pytest.approx(expected.confidence, rel=1e-3)
    assert completion.sgl["guide_seconds"] > 0
    assert completion.sgl["score"] is None
    assert completion.usage.prompt_tokens == expected.prompt_tokens
    assert text(completion) == large_pruned(qwen2_pair, question, 1, 0.35, 12)


@pytest.mark.parametrize(
    ("seeds", "retention", "kept"),
    [
        ((1,), 0.09, 10),
        ((1,), 0.5, 56),
        ((1, 2), 0.35, 78),
        ((1, 2, 3), 0.02, 6),
        ((1, 2), 0.001, 1),
        ((1,), 0.999, 111),
    ],
)
def test_kept_count_is_exact(server, seeds, retention, kept):
    completion = ask(server, "Who is it?", *seeds, sgl={"retention": retention}, max_tokens=2)
    assert completion.sgl["visual_tokens"] == VISUAL * len(seeds)
    assert completion.sgl["kept_tokens"] == kept


@pytest.mark.parametrize(("question", "seed"), [SHORT, EMPTY, ("What is on the sign?", 2)])
def test_exit_is_the_small_models_greedy_answer(server, qwen2_pair, question, seed):
    expected = small_alone(qwen2_pair[0], question, seed)
    assert expected.finished
    # The client's temperature is the large model's business.
    completion = ask(
        server, question, seed, sgl={"exit_threshold": 0}, max_tokens=40, temperature=1.5, seed=5
    )
    choice, report = completion.choices[0], completion.sgl
    assert report["decision"] == "exit"
    assert report["reason"] is None
    assert report["kept_tokens"] == 0
    assert (choice.message.content, choice.finish_reason) == (expected.answer, "stop")
    assert completion.usage.prompt_tokens == expected.prompt_tokens
    assert completion.usage.completion_tokens == expected.tokens
    assert report["confidence"] == pytest.approx(expected.confidence, rel=1e-3)
    assert report["consistency"] == pytest.approx(expected.consistency, rel=2e-2)
    assert report["score"] == pytest.approx((report["confidence"] + report["consistency"]) / 2)


def test_query_rows_of_a_request_rank_what_its_consistency_pass_shows(server, qwen2_pair):
    rows = "last_prompt+generated"
    expected = small_alone(qwen2_pair[0], *SHORT, query_rows=rows).consistency
    assert expected != pytest.approx(small_alone(qwen2_pair[0], *SHORT).consistency, rel=0.05)
    completion = ask(server, *SHORT, sgl={"exit_threshold": 0, "query_rows": rows}, max_tokens=40)
    assert completion.sgl["consistency"] == pytest.approx(expected, rel=2e-2)


def test_exit_at_the_threshold_and_not_above(server):
    score = ask(server, *EMPTY, sgl={"exit_threshold": 0}).sgl["score"]
    below = ask(server, *EMPTY, sgl={"exit_threshold": score - 1e-3})
    above = ask(server, *EMPTY, sgl={"exit_threshold": score + 1e-3})
    hopeless = ask(server, *EMPTY, sgl={"exit_threshold": 1})
    assert below.sgl["decision"] == "exit"
    assert (above.sgl["decision"], above.sgl["reason"]) == ("prune", "low_score")
    assert above.sgl["score"] == pytest.approx(score, abs=1e-4)
    # (confidence + 1) / 2 < 1 already: the consistency pass is not worth running.
    assert (hopeless.sgl["decision"], hopeless.sgl["reason"]) == ("prune", "low_confidence")
    assert hopeless.sgl["consistency"] is None


def test_answer_cut_by_the_clients_own_max_tokens_may_exit(server, qwen2_pair):
    expected = small_alone(qwen2_pair[0], *LONG, 12)
    completion = ask(server, *LONG, sgl={"exit_threshold": 0}, max_tokens=12)
    assert completion.sgl["decision"] == "exit"
    assert text(completion) == expected.answer
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 12


def test_answer_cut_by_guide_tokens_does_not_exit(server):
    for options in ({"max_tokens": 40}, {"max_tokens": 12, "guide": 3}):
        sgl = {"exit_threshold": 0, "guide_tokens": options.pop("guide", 32)}
        completion = ask(server, *LONG, sgl=sgl, **options)
        assert (completion.sgl["decision"], completion.sgl["reason"]) == ("prune", "unfinished")
        assert completion.sgl["score"] is None


@pytest.mark.parametrize(
    "forcing", [{"ignore_eos": True}, {"min_tokens": 40}], ids=["ignore_eos", "min_tokens"]
)
def test_guide_ends_where_the_clients_answer_is_forced_on(server, qwen2_pair, forcing):
    """As a benchmarker asks: the answer is as long as wanted, and the guide says what it would anyway."""
    expected = small_alone(qwen2_pair[0], *SHORT)
    assert expected.tokens < 40
    asked = {"sgl": {"exit_threshold": 0, "guide_tokens": 300}, "max_tokens": 40}
    completion = ask(server, *SHORT, extra=forcing, **asked)
    report = completion.sgl
    assert (report["decision"], report["reason"]) == ("prune", "forced_length")
    assert report["confidence"] == pytest.approx(expected.confidence, rel=1e-3)
    assert report["consistency"] is None, "no pass for what cannot exit"
    assert completion.usage.completion_tokens == 40


def test_answer_that_is_as_long_as_the_client_forces_it_exits(server, qwen2_pair):
    expected = small_alone(qwen2_pair[0], *SHORT)
    asked = {"sgl": {"exit_threshold": 0}, "max_tokens": 40}
    assert (
        ask(server, *SHORT, extra={"min_tokens": expected.tokens}, **asked).sgl["reason"] == "forced_length"
    )
    exiting = ask(server, *SHORT, extra={"min_tokens": expected.tokens - 1}, **asked)
    assert (exiting.sgl["decision"], text(exiting)) == ("exit", expected.answer)
    # Cut by the client's own limit, before its end: nobody forced it on.
    cut = ask(server, *LONG, sgl={"exit_threshold": 0}, max_tokens=12, extra={"ignore_eos": True})
    assert (cut.sgl["decision"], cut.usage.completion_tokens) == ("exit", 12)


@pytest.mark.parametrize("include", [False, True])
def test_stop_string_ends_an_exit_answer(server, qwen2_pair, include):
    question, seed, stop = "What is on the sign?", 2, "ny"
    whole = small_alone(qwen2_pair[0], question, seed).answer
    before, found, after = whole.partition(stop)
    assert found
    assert after
    completion = ask(
        server, question, seed, sgl={"exit_threshold": 0}, stop=[stop, "\n\n"],
        extra={"include_stop_str_in_output": include},
    )  # fmt: skip
    assert completion.sgl["decision"] == "exit"
    assert text(completion) == before + (stop if include else "")
    assert completion.choices[0].finish_reason == "stop"
    assert completion.choices[0].stop_reason == stop


FORCED_TOOL = {"type": "function", "function": {"name": "look"}}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"n": 2, "temperature": 0.8}, "n"),
        ({"logprobs": True, "top_logprobs": 2}, "logprobs"),
        ({"tools": TOOLS}, "tools"),
        ({"tools": TOOLS, "tool_choice": FORCED_TOOL}, "tools"),
        ({"response_format": SCHEMA, "max_tokens": 40}, "structured_output"),
        ({"response_format": {"type": "json_object"}, "max_tokens": 40}, "structured_output"),
    ],
)
def test_guided_but_never_exits(server, options, reason):
    completion = ask(server, *SHORT, sgl={"exit_threshold": 0}, **options)
    assert (completion.sgl["decision"], completion.sgl["reason"]) == ("prune", reason)
    assert completion.sgl["kept_tokens"] == 39
    assert len(completion.choices) == options.get("n", 1)
    if reason == "logprobs":
        assert len(completion.choices[0].logprobs.content) == completion.usage.completion_tokens
    if reason == "structured_output" and completion.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text(completion)), dict)


def test_tools_that_may_not_be_called_do_not_rule_an_exit_out(server):
    completion = ask(server, *SHORT, sgl={"exit_threshold": 0}, tools=TOOLS, tool_choice="none")
    assert completion.sgl["decision"] == "exit"


def test_disabled_is_the_large_models_own_answer(server, qwen2_pair):
    completion = ask(server, *SHORT, sgl={"enabled": 0})
    assert_bypassed(completion, "disabled", VISUAL)
    assert text(completion) == large_pruned(qwen2_pair, *SHORT, 1.0, 12)
    assert completion.usage.prompt_tokens == small_alone(qwen2_pair[0], *SHORT).prompt_tokens


def test_text_only_is_bypassed(server):
    assert_bypassed(ask(server, "Who is it?"), "no_image", 0)


def test_retention_1_without_exit_is_bypassed(server):
    assert_bypassed(ask(server, *SHORT, sgl={"retention": 1}), "retention_1_without_exit", VISUAL)


def test_retention_1_with_exit_is_guided(server):
    completion = ask(server, *EMPTY, sgl={"retention": 1, "exit_threshold": 0.9})
    assert (completion.sgl["decision"], completion.sgl["kept_tokens"]) == ("prune", VISUAL)


def test_too_long_for_the_small_model_is_bypassed(server):
    question = "Who is it? " + "Read the number. " * 20
    completion = ask(server, question, 1, 2, 3, 4)
    assert SMALL_CONTEXT < completion.usage.prompt_tokens < 1024
    assert_bypassed(completion, "too_long_for_small", 4 * VISUAL)


def test_prompt_logprobs_are_bypassed(server):
    completion = ask(server, *SHORT, extra={"prompt_logprobs": 1})
    assert_bypassed(completion, "prompt_logprobs", VISUAL)
    assert len(completion.prompt_logprobs) == completion.usage.prompt_tokens


def test_beam_search_is_bypassed(server):
    completion = ask(server, *SHORT, n=2, extra={"use_beam_search": True}, max_tokens=4)
    assert_bypassed(completion, "beam_search", VISUAL)
    assert len(completion.choices) == 2


def test_image_embeddings_are_bypassed(server):
    packed = io.BytesIO()
    torch.save(torch.randn(16, 192, generator=torch.Generator().manual_seed(0)), packed)
    part = {"type": "image_embeds", "image_embeds": base64.b64encode(packed.getvalue()).decode()}
    completion = server.client.chat.completions.create(
        model=server.model,
        messages=[{"role": "user", "content": [part, {"type": "text", "text": "Who?"}]}],
        max_tokens=4,
    )
    assert_bypassed(completion, "image_embeddings", 16)
