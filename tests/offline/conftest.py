"""``vllm_sgl.LLM`` over the tiny pair; starting one takes half a minute."""

from contextlib import contextmanager

import pytest

import vllm_sgl
from tests.support.images import data_url, random_image
from tests.support.rendering import chat_prompt

SIZE = (300, 200)


def prompt(question, *seeds):
    """What ``LLM.generate`` takes: a question about random images."""
    images = [random_image(seed, *SIZE) for seed in seeds]
    given = {"prompt": chat_prompt(question, len(images))}
    return {**given, "multi_modal_data": {"image": images}} if images else given


def conversation(question, *seeds):
    """The same for ``LLM.chat``."""
    urls = [data_url(random_image(seed, *SIZE)) for seed in seeds]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


@contextmanager
def running(pair, **settings):
    small, large = pair
    llm = vllm_sgl.LLM(
        str(large), sgl_small=str(small), trust_remote_code=True, enforce_eager=True, dtype="float32",
        max_model_len=640, kv_cache_memory_bytes=64 << 20, max_num_seqs=16,
        limit_mm_per_prompt={"image": 2}, **{"sgl_break_even": "off", "sgl_follow_ups": "off", **settings},
    )  # fmt: skip
    try:
        yield llm
    finally:
        llm.shutdown()


@pytest.fixture(scope="module")
def llm(qwen2_pair):
    with running(qwen2_pair, sgl_profiles={"fast": {"retention": 0.18}}) as started:
        yield started


@pytest.fixture(scope="module")
def shadow_log(tmp_path_factory):
    """The path of what ``shadow_llm`` logs."""
    return tmp_path_factory.mktemp("shadow") / "shadow.jsonl"


@pytest.fixture(scope="module")
def shadow_llm(qwen2_pair, shadow_log):
    settings = {
        "sgl_shadow": True, "sgl_exit_threshold": 0.0, "sgl_query_rows": "last_prompt+generated",
        "sgl_shadow_log": str(shadow_log), "sgl_log_text": True,
    }  # fmt: skip
    with running(qwen2_pair, **settings) as started:
        yield started
