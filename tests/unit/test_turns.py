"""Where a chat's last turn begins: told by the tokens of each model's own template."""

import pytest
from vllm.tokenizers import get_tokenizer

from tools.tiny_internvl import DECODER_PAIRS, SMALL_QWEN2, build
from vllm_sgl.guide.local.turns import Turns

TURNS = [
    {"role": "user", "content": "What time is it?"},
    {"role": "assistant", "content": "Ten."},
    {"role": "user", "content": "And where?"},
]


@pytest.fixture(scope="module", params=["qwen2", *DECODER_PAIRS])
def tokenizer(request, tmp_path_factory):
    spec = SMALL_QWEN2 if request.param == "qwen2" else DECODER_PAIRS[request.param][0]
    return get_tokenizer(str(build(spec, tmp_path_factory.mktemp("turns"))), trust_remote_code=True)


def ids_of(tokenizer, messages):
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False)


def test_the_last_turn_is_the_last_question_and_what_follows(tokenizer):
    turns, ids = Turns.of(tokenizer), ids_of(tokenizer, TURNS)
    begin = turns.last(ids, 0)
    assert tokenizer.decode(ids[begin:]).strip().startswith("And where?")
    assert tokenizer.decode(ids[:begin]).count("What time is it?") == 1


def test_a_turn_is_not_looked_for_in_front_of_the_images(tokenizer):
    turns, ids = Turns.of(tokenizer), ids_of(tokenizer, TURNS)
    begin = turns.last(ids, 0)
    assert turns.last(ids, begin) == begin
    assert turns.last(ids, len(ids)) == len(ids)


def test_one_turn_has_no_header_in_it(tokenizer):
    ids = ids_of(tokenizer, TURNS[:1])
    assert Turns.of(tokenizer).last(ids, 3) == 3


def test_a_model_without_a_template_has_no_turns(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", None)
    assert Turns.of(tokenizer).header == ()
    assert Turns().last([1, 2, 3], 1) == 1
