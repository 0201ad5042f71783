"""A chat over HTTP: what was kept of its image stays, so that vLLM's prefix cache serves it."""

import openai
import pytest

from tests.serve.asking import SIZE, content, text
from tests.support.images import random_image
from tests.support.rendering import render
from tools.reference import reference, select

#: The first one is so long that it fills a block of the prefix cache with what is kept.
QUESTIONS = ("What is written on the sign next to the door? " * 6, "Read the number.", "Who is it?")
ANSWER = "Nothing."
MAX_TOKENS = 6


def prompt(turns):
    """ChatML text of a conversation about one image."""
    text = "<|im_start|>user\n<image>\n" + QUESTIONS[0]
    for question in QUESTIONS[1:turns]:
        text += f"<|im_end|>\n<|im_start|>assistant\n{ANSWER}<|im_end|>\n<|im_start|>user\n{question}"
    return text + "<|im_end|>\n<|im_start|>assistant\n"


def chat(server, seed, **sgl):
    """A conversation's responses, and how many prompt tokens of each the large engine had in its cache."""
    messages, found = [{"role": "user", "content": content(QUESTIONS[0], [seed])}], []
    body = {"vllm_xargs": {f"sgl_{name}": value for name, value in sgl.items()}}
    for question in (*QUESTIONS[1:], None):
        before = server.metrics().total("vllm:prefix_cache_hits_total")
        answered = server.client.chat.completions.create(
            model=server.model, messages=messages, temperature=0, max_tokens=MAX_TOKENS, extra_body=body
        )
        found.append((answered, server.metrics().total("vllm:prefix_cache_hits_total") - before))
        messages += [{"role": "assistant", "content": ANSWER}, {"role": "user", "content": question}]
    return found


def test_turns_of_a_chat_keep_what_the_first_one_kept(server, qwen2_pair):
    before = server.metrics().total("sgl:visual_tokens_total", kind="reused")
    answered = chat(server, 21, follow_ups="sticky")
    small, large = map(reference, qwen2_pair)
    image = [random_image(21, *SIZE)]
    ids, pixels = render(qwen2_pair[0], prompt(1), image)
    tokens = small.generate(ids, pixels, MAX_TOKENS).tokens
    kept = select(small.importance(ids, pixels, tokens), 0.35)
    for turn, (completion, cached) in enumerate(answered, start=1):
        expected = large.generate(*render(qwen2_pair[1], prompt(turn), image), MAX_TOKENS, keep=kept)
        assert text(completion) == large.tokenizer.decode(expected.tokens, skip_special_tokens=True)
        sgl = completion.sgl
        assert (sgl["decision"], sgl["reason"]) == ("prune", None if turn == 1 else "follow_up")
        assert (sgl["kept_tokens"], sgl["reused_tokens"]) == (39, 0 if turn == 1 else 39)
        assert (sgl["guide_seconds"] is None) == (cached > 0) == (turn > 1)
    assert server.metrics().total("sgl:visual_tokens_total", kind="reused") - before == 2 * 39


def test_turns_of_a_chat_add_what_they_need(server):
    (first, _), *later = chat(server, 22, follow_ups="late", retention=0.09)
    assert first.sgl["reused_tokens"] == 0
    reused = first.sgl["kept_tokens"]
    for completion, cached in later:
        sgl = completion.sgl
        assert (sgl["reason"], sgl["reused_tokens"]) == ("follow_up", reused)
        assert sgl["guide_seconds"] > 0
        assert cached > 0
        reused = sgl["kept_tokens"]
        assert reused == sgl["reused_tokens"] + sgl["late_tokens"]


def test_images_of_many_questions_are_sent_unpruned(server):
    """Two images: what is kept of them fills a block of the prefix cache."""
    body = {"vllm_xargs": {"sgl_follow_ups": "late", "sgl_retention": 0.7}}
    found = [
        server.client.chat.completions.create(
            model=server.model, messages=[{"role": "user", "content": content(question, [23, 24])}],
            temperature=0, max_tokens=MAX_TOKENS, extra_body=body,
        ).sgl
        for question in ("Who?", "What?", "When?", "Where?")
    ]  # fmt: skip
    assert [sgl["reason"] for sgl in found] == [None, "follow_up", "hot_image", "hot_image"]
    assert [sgl["decision"] for sgl in found] == ["prune", "prune", "bypass", "bypass"]


@pytest.mark.parametrize("key", [{"sgl_follow_ups": "always"}, {"sgl_hot_after": 2}])
def test_bad_keys_are_refused(server, key):
    with pytest.raises(openai.BadRequestError, match="sgl_"):
        server.client.chat.completions.create(
            model=server.model, messages=[{"role": "user", "content": "Who?"}],
            extra_body={"vllm_xargs": key},
        )  # fmt: skip
