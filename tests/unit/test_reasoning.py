"""Where a response would have an exit's answer, by vLLM's own reasoning parsers: in its content, or not."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from transformers import PreTrainedTokenizerFast

from tests.unit.test_pipeline import FACTS, FakeGuide, answer, walk
from tools.tiny_internvl.tokenizer import SPECIAL_TOKENS, TRAINING_TEXT, train
from vllm_sgl.host.request.reasoning import content_test

THINK, END = "<think>", "</think>"
#: What a template ends a prompt with: nothing, an open thought, or none (``enable_thinking`` of false).
OPEN, NONE = f"{THINK}\n", f"{THINK}\n\n{END}\n\n"


@pytest.fixture(scope="module")
def tokenizer():
    trained = train(TRAINING_TEXT, special=(*SPECIAL_TOKENS, THINK, END))
    return PreTrainedTokenizerFast(tokenizer_object=trained, eos_token="<|im_end|>")


def config(parser):
    model = SimpleNamespace(model="large", hf_config=SimpleNamespace(model_type="internvl_chat"))
    return SimpleNamespace(
        structured_outputs_config=SimpleNamespace(reasoning_parser=parser), model_config=model
    )


def ask(tokenizer, parser, prompt, text, enable_thinking=None):
    template = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
    ids = tokenizer.encode(f"<|im_start|>assistant\n{prompt}")
    kwargs = {"reasoning_parser_kwargs": {"chat_template_kwargs": template}}
    return content_test(config(parser), tokenizer, ids, kwargs)(text, tokenizer.encode(text))


@pytest.mark.parametrize(
    ("parser", "prompt", "text", "thinking", "found"),
    [
        # A model that thinks, and a guide that does not: the answer would be the thought.
        ("qwen3", "", "yes", None, False),
        ("qwen3", "", "yes", True, False),
        ("qwen3", OPEN, "yes", True, False),
        ("deepseek_r1", OPEN, "yes", None, False),
        # A guide that thinks as the large model does.
        ("qwen3", "", f"{THINK}so{END}yes", None, True),
        ("qwen3", OPEN, f"so{END}yes", True, True),
        ("deepseek_r1", OPEN, f"so{END}yes", None, True),
        ("qwen3", "", f"{THINK}so{END}", None, False),
        # Thinking is off. The second parser is not told so, and takes the large model's own for it, too.
        ("qwen3", NONE, "yes", False, True),
        ("deepseek_r1", NONE, "yes", None, False),
    ],
)
def test_where_the_answer_would_be(tokenizer, parser, prompt, text, thinking, found):
    assert ask(tokenizer, parser, prompt, text, thinking) is found


def test_answers_that_no_parser_reads(tokenizer):
    """Without a parser, and on endpoints that use none."""
    for parser, kwargs in (("", {"reasoning_parser_kwargs": {}}), ("qwen3", {}), (
        "qwen3", {"reasoning_parser_kwargs": None}
    )):  # fmt: skip
        assert content_test(config(parser), tokenizer, [1], kwargs) is None


def test_a_parser_that_fails_rules_the_exit_out(tokenizer, warnings_logged):
    kwargs = {"reasoning_parser_kwargs": {"chat_template_kwargs": {}}}
    assert content_test(config("no_such_parser"), tokenizer, [1], kwargs)("yes", [5]) is False
    assert "no_such_parser cannot read an answer" in warnings_logged[0].getMessage()


@pytest.mark.parametrize(
    ("found", "decision", "reason"), [(True, "exit", None), (False, "prune", "reasoning")]
)
def test_an_exit_is_only_taken_where_its_text_is_content(found, decision, reason):
    asked, guide = [], FakeGuide(answer())
    facts = replace(FACTS, is_content=lambda *said: asked.append(said) or found)
    report = walk(guide, facts, exit_threshold=0.0).report
    assert (report.decision, report.reason) == (decision, reason)
    assert asked == [("yes", (7, 2))]
    assert len(guide.calls) == 1 + found  # no second pass for nothing
