"""The break-even rule over real engines: costs are measured before the first request, and decide."""

import pytest
from vllm import SamplingParams

from tests.offline.conftest import prompt, running
from tests.support.images import random_image
from tests.support.rendering import chat_prompt
from tools.tiny_internvl import SMALL_QWEN2, TinySpec, build_pair
from vllm_sgl.core import Facts, Seen, VisualItem
from vllm_sgl.prune.auto import best_policy
from vllm_sgl.prune.registry import policy

#: So heavy that its prefill of two large images outweighs a guide pass, and of one tile does not. Its vision
#: encoder takes about as much.
HEAVY = TinySpec(
    "large-heavy", "qwen2", hidden=768, layers=8, heads=12, kv_heads=4, head_dim=64, intermediate=2112,
    vit_hidden=512, vit_layers=6, vit_heads=8, seed=14,
)  # fmt: skip


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    pair = build_pair(tmp_path_factory.mktemp("heavy"), SMALL_QWEN2, HEAVY)
    with running(pair, sgl_break_even="measure", sgl_policy="auto") as started:
        yield started


@pytest.mark.parametrize(
    ("size", "images", "expected"),
    [((100, 100), 1, ("bypass", "below_break_even")), ((700, 100), 2, ("prune", None))],
)
def test_a_request_is_guided_where_that_pays(llm, size, images, expected):
    asked = {
        "prompt": chat_prompt("What is on the sign?", images),
        "multi_modal_data": {"image": [random_image(seed, *size) for seed in range(images)]},
    }
    (output,) = llm.generate(asked, SamplingParams(temperature=0, max_tokens=4), use_tqdm=False)
    report = output.sgl
    assert (report.decision, report.reason) == expected
    facts = Facts((report.visual_tokens,), len(output.prompt_token_ids), 4)
    assert llm.llm_engine.costs.pays(facts, 0.35, False, 32) == (expected[0] == "prune")


def test_costs_are_those_of_passes_of_several_lengths(llm):
    llm.generate(prompt("Who?", 1), SamplingParams(max_tokens=1), use_tqdm=False)
    costs = llm.llm_engine.costs
    lengths = [tokens for tokens, _ in costs.prefill]
    assert len(lengths) >= 2  # a slow machine stops before the longest
    assert lengths == [32, 128, 512, 639][: len(lengths)]
    assert costs.prefill[-1][1] > costs.prefill[0][1] > 0
    assert costs.guidance(100, 8) >= costs.guidance(100, 1) > 0


def test_the_policy_follows_from_the_measured_vision_encoder(llm):
    params = SamplingParams(temperature=0, max_tokens=4, extra_args={"sgl_retention": 0.2})
    asked = {
        "prompt": chat_prompt("What is on the sign?", 2),
        "multi_modal_data": {"image": [random_image(seed, 700, 100) for seed in range(2)]},
    }
    (output,) = llm.generate(asked, params, use_tqdm=False)
    costs, report = llm.llm_engine.costs, output.sgl
    assert costs.vision > 0
    assert report.decision == "prune"
    seen = [Seen(VisualItem("image", len(part), 16), part) for part in report.importance]
    expected = policy(best_policy(costs.vision_share)).select(seen, 0.2)
    assert [part.tolist() for part in report.kept] == [part.tolist() for part in expected]


def test_measuring_leaves_nothing_behind(llm):
    llm.generate(prompt("Who?", 1), SamplingParams(max_tokens=1), use_tqdm=False)
    assert llm.llm_engine.get_num_unfinished_requests() == 0
