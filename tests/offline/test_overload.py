"""A job waits for its guide: nothing is left alone for having come all at once."""

import pytest
from vllm import SamplingParams

from tests.offline.conftest import prompt, running
from tools.tiny_internvl.tokenizer import IM_END

PROMPTS = 200


@pytest.fixture(scope="module")
def hurried(qwen2_pair):
    # One place: two hundred passes one after the other exceed the limit on any machine.
    with running(qwen2_pair, sgl_guide_timeout=2, sgl_small_args={"max_num_seqs": 1}) as started:
        yield started


def test_two_hundred_prompts_at_once_are_all_pruned(hurried):
    prompts = [prompt("Who?", number) for number in range(PROMPTS)]
    params = SamplingParams(temperature=0, max_tokens=24, bad_words=[IM_END])  # no guide ends sooner
    outputs = hurried.generate(prompts, params, use_tqdm=False)
    assert {(output.sgl.decision, output.sgl.reason) for output in outputs} == {("prune", None)}
    waited = [output.sgl.guide_seconds for output in outputs]
    assert max(waited) > 2, "nobody waited for longer than the limit: this shows nothing"
