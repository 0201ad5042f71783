"""Positions of pruned prompts are columns of vLLM's own for the whole prompt, whatever is in it."""

import numpy as np
import pytest
import torch
from vllm.multimodal.inputs import MultiModalFeatureSpec
from vllm.renderers.inputs.preprocess import parse_model_prompt

from tests.support.engines import Engines
from tests.support.images import random_image
from tools.tiny_families import FAMILIES, build_pair
from vllm_sgl.prune.rewrite import prune_prompt
from vllm_sgl.visual.items import placed_items, visual_counts

IMAGE, VIDEO = (f"<|vision_start|><|{kind}_pad|><|vision_end|>" for kind in ("image", "video"))
PROMPTS = {
    "text": "Who?",
    "image": f"Look: {IMAGE}Who?",
    "images that adjoin": f"{IMAGE}{IMAGE}",
    "video": f"Look: {VIDEO}Who?",
    "both": f"{IMAGE} and {VIDEO} and {IMAGE}?",
}


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def engines(request, tmp_path_factory):
    pair = build_pair(FAMILIES[request.param], tmp_path_factory.mktemp(request.param))
    engines = Engines(pair, enable_prefix_caching=False)
    yield engines
    engines.shutdown()


@pytest.fixture(params=PROMPTS)
def prompt(request, engines):
    text = PROMPTS[request.param]
    data = {}
    if images := [random_image(i, 140 + 60 * i, 112) for i in range(text.count(IMAGE))]:
        data["image"] = images
    if VIDEO in text:
        frames = np.stack([np.asarray(random_image(9 + i, 112, 84)) for i in range(6)])
        about = {"fps": 2.0, "duration": 3.0, "total_num_frames": 6, "frames_indices": list(range(6))}
        data["video"] = [(frames, {**about, "video_backend": "opencv", "do_sample_frames": False})]
    asked = {"prompt": text, **({"multi_modal_data": data} if data else {})}
    parsed = parse_model_prompt(engines.small.model_config, asked)
    renderer = engines.renderer
    (rendered,) = renderer.render_cmpl([parsed], renderer.default_cmpl_tok_params)
    return rendered


def features(prompt):
    return [
        MultiModalFeatureSpec(
            data=prompt["mm_kwargs"][item.modality][item.index], modality=item.modality, identifier="x",
            mm_position=item.place,
        )
        for item in (placed_items(prompt) if "mm_placeholders" in prompt else [])
    ]  # fmt: skip


def test_positions(engines, prompt):
    model = engines.large.runner.model
    tokens = prompt["prompt_token_ids"]
    vllms = next(kind for kind in type(model).__mro__ if kind.__module__.startswith("vllm.model_executor"))
    whole, delta = vllms.get_mrope_input_positions(model, tokens, features(prompt))
    ours, our_delta = model.get_mrope_input_positions(tokens, features(prompt))
    assert ours.equal(whole)
    assert our_delta == delta
    if "mm_placeholders" not in prompt:
        return
    generator = torch.Generator().manual_seed(0)
    kept = [
        torch.rand(n, generator=generator).topk(n // 3).indices.sort().values for n in visual_counts(prompt)
    ]
    pruned = prune_prompt(prompt, kept)
    left = pruned["prompt_token_ids"]
    stays = torch.ones(len(tokens), dtype=torch.bool)
    for item, indices in zip(placed_items(prompt), kept, strict=True):
        mask = item.place.is_embed
        inside = torch.arange(item.place.length) if mask is None else mask.nonzero().flatten()
        stays[item.place.offset + inside] = False
        stays[item.place.offset + inside[indices]] = True
    ours, our_delta = model.get_mrope_input_positions(left, features(pruned))
    assert ours.equal(whole[:, stays])
    assert our_delta == delta + len(tokens) - len(left)


async def test_requests_that_are_left_alone_are_answered(engines, prompt):
    """The variant answers about whole images and videos as about text."""
    tokens, logprobs = await engines.answer_large(prompt, 3)
    assert len(tokens) == len(logprobs) >= 1
    assert torch.isfinite(logprobs).all()
