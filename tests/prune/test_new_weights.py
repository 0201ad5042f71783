"""Weights that change in a running engine, by vLLM's own procedure: answers are those of the new ones, on
images whose features of the old ones were kept."""

import asyncio
from dataclasses import replace

import pytest

from tests.support.compare import assert_same_answer
from tests.support.engines import inputs
from tools.reference import reference
from tools.tiny_internvl import LARGE_QWEN2, build
from vllm_sgl.prune.rewrite import prune_prompt, tag_items

from .test_pruned_answers import random_masks


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The large model after some training, as it were."""
    return build(replace(LARGE_QWEN2, seed=99), tmp_path_factory.mktemp("trained") / LARGE_QWEN2.name)


def reload(engine, path):
    """New weights, then every cache, as vLLM has them cleared after an update."""
    engine.collective_rpc("reload_weights", kwargs={"weights_path": str(path)})
    assert engine.reset_prefix_cache()
    engine.reset_encoder_cache()


def test_answers_are_those_of_the_weights(engines, qwen2_pair, trained):
    prompt = engines.render("What is written on the sign?", (300, 200))
    kept = random_masks(prompt, 5)
    asked = [prune_prompt(prompt, kept), tag_items(prompt)]
    model, large = engines.large.runner.model, engines.large.engine

    def answers():
        return [asyncio.run(engines.answer_large(one)) for one in asked]

    def expected(model):
        return [model.generate(*inputs(prompt), 8, keep=keep) for keep in (kept, None)]

    def check(model):
        for answer, other in zip(answers(), expected(model), strict=True):
            assert_same_answer(answer, other)

    check(engines.large_reference)
    assert len(model._features) > 0
    try:
        reload(large, trained)
        assert len(model._features) == 0
        check(reference(trained))
        assert len(model._features) > 0
        large.reset_encoder_cache()  # alone, as a trainer calls it that writes into the parameters
        assert len(model._features) == 0
    finally:
        reload(large, qwen2_pair[1])
    check(engines.large_reference)
