"""A translated pair in ``vllm_sgl.LLM``, its costs measured at start."""

import pytest
from vllm import SamplingParams

import vllm_sgl
from tests.support.engines import user
from tests.support.images import QUESTIONS, random_image
from tests.support.rendering import chat_prompt
from vllm_sgl.core import Reason

SIZE = (300, 200)


@pytest.fixture(scope="module")
def llm(pair):
    small, large = pair
    llm = vllm_sgl.LLM(
        str(large), sgl_small=str(small), sgl_follow_ups="off", trust_remote_code=True, enforce_eager=True,
        dtype="float32", max_model_len=1024, kv_cache_memory_bytes=64 << 20, max_num_seqs=8,
        limit_mm_per_prompt={"image": 2},
    )  # fmt: skip
    yield llm
    llm.shutdown()


@pytest.fixture
def guiding(llm, monkeypatch):
    """The same without the rule that leaves requests alone where guidance does not pay, as here."""
    pipeline = llm.llm_engine._engine._ready.result()
    monkeypatch.setattr(pipeline, "_costs", None)
    return llm


def greedy(**sgl):
    extra = {f"sgl_{name}": value for name, value in sgl.items()}
    return SamplingParams(temperature=0, max_tokens=12, extra_args=extra)


def test_the_second_rendering_is_part_of_what_guidance_costs(llm):
    """Images small and large were shown to the guide before the first request."""
    costs = llm.llm_engine.costs
    assert costs is not None
    assert costs.guide[0] > 0


def test_chat_is_guided(guiding, walked):
    conversations = [[user(question, random_image(1, *SIZE))] for question in QUESTIONS]
    outputs = guiding.chat(conversations, greedy(), use_tqdm=False)
    for messages, output in zip(conversations, outputs, strict=True):
        outcome, answer = walked(messages, 12)
        assert (output.sgl.decision, output.sgl.reason) == ("prune", None)
        assert [kept.tolist() for kept in output.sgl.kept] == [kept.tolist() for kept in outcome.report.kept]
        assert output.outputs[0].text == answer


def test_a_raw_prompt_has_no_conversation(guiding):
    image = random_image(1, *SIZE)
    prompt = {"prompt": chat_prompt("Who?", 1), "multi_modal_data": {"image": image}}
    (output,) = guiding.generate(prompt, greedy(), use_tqdm=False)
    assert (output.sgl.decision, output.sgl.reason) == ("bypass", Reason.NO_CONVERSATION)
    (chatted,) = guiding.chat([user("Who?", image)], greedy(enabled=0), use_tqdm=False)
    assert output.outputs[0].text == chatted.outputs[0].text


def test_ids_of_an_exit_are_the_large_models(guiding, walked):
    messages = [user("Is the door open?", random_image(1, *SIZE))]
    params = SamplingParams(temperature=0, max_tokens=40, extra_args={"sgl_exit_threshold": 0})
    (output,) = guiding.chat(messages, params, use_tqdm=False)
    outcome, answer = walked(messages, 40, sgl_exit_threshold=0)
    assert output.sgl.decision == "exit"
    completion = output.outputs[0]
    assert (completion.text, tuple(completion.token_ids)) == (answer, outcome.answer.token_ids)
    assert guiding.get_tokenizer().decode(completion.token_ids, skip_special_tokens=True) == answer
