"""``vllm_sgl.LLM`` is vLLM's ``LLM``, and every output tells what the guide did."""

from typing import get_args

import pytest
import torch
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import BeamSearchParams

import vllm_sgl
from tests.offline.conftest import SIZE, conversation, prompt
from tests.support.images import QUESTIONS, random_image
from tests.support.rendering import chat_prompt, render
from tools.reference import reference, select
from vllm_sgl.config import QueryRows
from vllm_sgl.decide.early_exit import ROW_TOKENS

VISUAL = 112
SHORT = ("Read the number.", 3)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def greedy(max_tokens=10, **options):
    sgl = {f"sgl_{name}": value for name, value in options.pop("sgl", {}).items()}
    return SamplingParams(temperature=0, max_tokens=max_tokens, extra_args=sgl, **options)


def by_reference(pair, question, seed, retention, max_tokens=10, query_rows="prompt+generated"):
    """(importance, kept, the large model's answer on what is kept), without vLLM."""
    small, large = map(reference, pair)
    ids, pixels = render(pair[0], chat_prompt(question, 1), [random_image(seed, *SIZE)])
    guided = small.generate(ids, pixels, min(max_tokens, ROW_TOKENS))  # no exit is possible
    importance = small.importance(ids, pixels, guided.tokens, query_rows)
    kept = select(importance, retention)
    answer = large.generate(ids, pixels, max_tokens, keep=kept)
    return importance, kept, large.tokenizer.decode(answer.tokens, skip_special_tokens=True)


def test_masks_of_a_batch_equal_single_ones(llm):
    """One image, many questions, two retentions: nobody gets another one's mask."""
    params = [greedy(sgl={"retention": (0.35, 0.09)[number % 2]}) for number in range(len(QUESTIONS))]
    batch = llm.chat([conversation(q, 1) for q in QUESTIONS], params, use_tqdm=False)
    single = [
        llm.chat(conversation(q, 1), p, use_tqdm=False)[0] for q, p in zip(QUESTIONS, params, strict=True)
    ]
    for number, (one, other) in enumerate(zip(single, batch, strict=True)):
        (importance,), (kept,) = other.sgl.importance, other.sgl.kept
        assert importance.dtype == torch.float32
        assert kept.dtype == torch.int64
        assert importance.shape == (VISUAL,)
        torch.testing.assert_close(importance, one.sgl.importance[0], rtol=1e-3, atol=1e-5)
        assert kept.tolist() == one.sgl.kept[0].tolist()
        assert kept.tolist() == sorted(set(kept.tolist()))
        assert len(kept) == other.sgl.kept_tokens == (39, 10)[number % 2]
        assert other.outputs[0].text == one.outputs[0].text
    masks = {tuple(output.sgl.kept[0].tolist()) for output in batch}
    assert len(masks) == len(QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS[:2])
def test_importance_mask_and_answer_are_the_references(llm, qwen2_pair, question):
    importance, kept, answer = by_reference(qwen2_pair, question, 2, 0.35)
    (output,) = llm.generate(prompt(question, 2), greedy(), use_tqdm=False)
    torch.testing.assert_close(output.sgl.importance[0], importance[0], rtol=1e-3, atol=1e-5)
    assert output.sgl.kept[0].tolist() == kept[0].tolist()
    assert output.outputs[0].text == answer


def test_a_profile_by_its_name(llm):
    named = [greedy(sgl=sgl) for sgl in ({}, {"profile": "fast"}, {"profile": "fast", "retention": 0.5})]
    outputs = llm.chat([conversation("Who is it?", 2)] * 3, named, use_tqdm=False)
    reports = [(output.sgl.profile, output.sgl.kept_tokens) for output in outputs]
    assert reports == [(None, 39), ("fast", 20), ("fast", 56)]
    with pytest.raises(VLLMValidationError, match="sgl_profile: expected 'fast', received 'slow'"):
        llm.chat(conversation("Who is it?", 2), greedy(sgl={"profile": "slow"}), use_tqdm=False)


def test_query_rows_of_one_request_are_its_own(llm, qwen2_pair):
    choices = get_args(QueryRows)
    params = [greedy(sgl={"query_rows": choice}) for choice in choices]
    outputs = llm.generate([prompt("Who is it?", 2)] * len(choices), params, use_tqdm=False)
    for choice, output in zip(choices, outputs, strict=True):
        importance, kept, answer = by_reference(qwen2_pair, "Who is it?", 2, 0.35, query_rows=choice)
        torch.testing.assert_close(output.sgl.importance[0], importance[0], rtol=1e-3, atol=1e-5)
        assert output.sgl.kept[0].tolist() == kept[0].tolist()
        assert output.outputs[0].text == answer


def test_query_rows_of_the_llm_hold_for_its_requests(shadow_llm, qwen2_pair):
    importance, *_ = by_reference(qwen2_pair, "Who?", 1, 0.35, query_rows="last_prompt+generated")
    (output,) = shadow_llm.generate(prompt("Who?", 1), greedy(), use_tqdm=False)
    torch.testing.assert_close(output.sgl.importance[0], importance[0], rtol=1e-3, atol=1e-5)


def test_a_mixed_list_keeps_its_order_and_its_own_parameters(llm):
    prompts = [prompt(*SHORT), prompt("Who?"), prompt("Who?", 1), prompt("Who?", 1, 2), prompt("Who?", 1)]
    params = [
        greedy(32, sgl={"exit_threshold": 0}),
        greedy(4),
        SamplingParams(
            n=3, temperature=0.9, max_tokens=5, ignore_eos=True, extra_args={"sgl_exit_threshold": 0}
        ),
        greedy(6, sgl={"retention": 0.1}),
        greedy(3, sgl={"enabled": 0}),
    ]
    outputs = llm.generate(prompts, params, use_tqdm=False)
    reports = [output.sgl for output in outputs]
    assert [(report.decision, report.reason) for report in reports] == [
        ("exit", None), ("bypass", "no_image"), ("prune", "n"), ("prune", None), ("bypass", "disabled"),
    ]  # fmt: skip
    assert [report.kept_tokens for report in reports] == [0, 0, 39, 22, VISUAL]
    assert [len(output.outputs) for output in outputs] == [1, 1, 3, 1, 1]
    assert [len(output.outputs[0].token_ids) for output in outputs[1:]] == [4, 5, 6, 3]
    assert [len(kept) for kept in reports[3].importance] == [VISUAL, VISUAL]
    assert sum(len(kept) for kept in reports[3].kept) == 22
    assert reports[4].importance is None
    assert all(output.finished for output in outputs)
    assert len(outputs[2].prompt_token_ids) == len(outputs[4].prompt_token_ids) > VISUAL


def test_exit_is_the_small_models_answer(llm, qwen2_pair):
    small = reference(qwen2_pair[0])
    ids, pixels = render(qwen2_pair[0], chat_prompt(SHORT[0], 1), [random_image(SHORT[1], *SIZE)])
    expected = small.generate(ids, pixels, 32)
    (output,) = llm.generate([prompt(*SHORT)], greedy(40, sgl={"exit_threshold": 0}), use_tqdm=False)
    assert output.sgl.decision == "exit"
    assert list(output.outputs[0].token_ids) == expected.tokens
    assert output.outputs[0].text == small.tokenizer.decode(expected.tokens, skip_special_tokens=True)
    assert output.outputs[0].finish_reason == "stop"
    assert output.prompt_token_ids == ids
    assert output.sgl.kept is None
    assert output.sgl.importance[0].shape == (VISUAL,)


def test_generate_and_chat_agree(llm):
    (generated,) = llm.generate(prompt("Who?", 1), greedy(), use_tqdm=False)
    (chatted,) = llm.chat(conversation("Who?", 1), greedy(), use_tqdm=False)
    assert generated.prompt_token_ids == chatted.prompt_token_ids
    assert generated.outputs[0].text == chatted.outputs[0].text
    assert generated.sgl.kept[0].tolist() == chatted.sgl.kept[0].tolist()


def test_beam_search_is_bypassed(llm):
    params = BeamSearchParams(beam_width=2, max_tokens=3)
    (output,) = llm.beam_search([prompt("Who?", 1)], params)
    assert len(output.sequences) == 2
    # A request after it is an ordinary one again.
    assert llm.generate(prompt("Who?", 1), greedy(2), use_tqdm=False)[0].sgl.decision == "prune"


@pytest.mark.parametrize(
    ("tools", "decision", "reason"), [(None, "exit", None), ([], "exit", None), ([TOOL], "prune", "tools")]
)
def test_tools_do_not_exit(llm, tools, decision, reason):
    """The caller of ``LLM`` is the client, so that without tools nothing stands against an exit."""
    params = greedy(sgl={"exit_threshold": 0})
    (output,) = llm.chat([conversation(*SHORT)], params, use_tqdm=False, tools=tools)
    llm.enqueue_chat([conversation(*SHORT)], params, use_tqdm=False, tools=tools)
    (later,) = llm.wait_for_completion(use_tqdm=False)
    for report in (output.sgl, later.sgl):
        assert (report.decision, report.reason) == (decision, reason)


@pytest.mark.parametrize("wanted", [True, False])
def test_progress_bar(llm, capfd, wanted):
    llm.generate([prompt("Who?", 1), prompt("Who?")], greedy(2), use_tqdm=wanted)
    assert ("Processed prompts" in capfd.readouterr().err) is wanted


@pytest.mark.parametrize(
    ("sgl", "words"),
    [
        ({"foo": 1}, "sgl_foo: unknown key"),
        ({"retention": 0}, r"sgl_retention: .*\(0, 1\]"),
        ({"query_rows": "all"}, "sgl_query_rows: expected .*'prompt.generated', .* received 'all'"),
    ],
)
def test_bad_key_is_vllms_validation_error_and_the_llm_goes_on(llm, sgl, words):
    expected = llm.generate(prompt("Who?", 1), greedy(), use_tqdm=False)[0].outputs[0].text
    with pytest.raises(VLLMValidationError, match=words):
        llm.generate([prompt("Who?", 1)] * 3, [greedy(), greedy(sgl=sgl), greedy()], use_tqdm=False)
    assert llm.llm_engine.get_num_unfinished_requests() == 0
    (output,) = llm.generate(prompt("Who?", 1), greedy(), use_tqdm=False)
    assert output.outputs[0].text == expected


@pytest.mark.parametrize(
    ("sgl", "words"),
    [
        ({"sgl_retention": 3}, "retention: expected"),
        ({"sgl_colour": 1}, "colour: unknown key"),
        ({"sgl_query_rows": "all"}, "rows: expected"),
    ],
)
def test_bad_setting_is_refused_before_anything_starts(qwen2_pair, sgl, words):
    with pytest.raises(ValueError, match=words):
        vllm_sgl.LLM(str(qwen2_pair[1]), sgl_small=str(qwen2_pair[0]), **sgl)
