"""A video for models without video input, as InternVL's own code puts it: frames as images of one tile each,
behind the words "Frame1: " and so on."""

import pytest
from vllm.renderers import ChatParams

from tests.support.engines import Engines, user
from tests.support.images import random_video
from tools.tiny_internvl import DECODER_PAIRS, build_pair
from vllm_sgl.visual.items import visual_counts

from .checks import check_walk

FRAMES = (8, 16, 32)
QUESTION = "Read the number on the back of the shirt."
#: Visual tokens of a tile.
TILE = 16


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """InternLM2, as in InternVL2-2B and -26B."""
    pair = build_pair(tmp_path_factory.mktemp("internlm2"), *DECODER_PAIRS["internlm2"])
    engines = Engines(pair, max_model_len=1280, enable_prefix_caching=True, limit_mm_per_prompt={"image": 32})
    yield engines
    engines.shutdown()


@pytest.fixture(params=FRAMES)
def prompt(request, engines):
    frames = random_video(request.param, 300, 200, request.param)
    text = "".join(f"Frame{number}: <image>\n" for number in range(1, request.param + 1))
    params = ChatParams(chat_template_kwargs={"add_generation_prompt": True, "tokenize": False})
    tokens = engines.renderer.default_chat_tok_params.with_kwargs(add_special_tokens=False)
    message = user(text + QUESTION, *frames)
    # As a server hands a request's settings on.
    extras = {"mm_processor_kwargs": {"max_dynamic_patch": 1}}
    _, (rendered,) = engines.renderer.render_chat([[message]], params, tokens, prompt_extras=extras)
    assert visual_counts(rendered) == (TILE,) * request.param
    return rendered


@pytest.mark.parametrize("retention", [0.35, 0.05])
async def test_all_frames_are_ranked_together(engines, prompt, retention):
    outcome = await check_walk(engines, prompt, retention)
    report, kept = outcome.report, outcome.report.kept
    # Frames of which nothing is kept are not encoded, and their words stay.
    sent = outcome.prompt["mm_kwargs"]["image"]
    assert [len(frame["pixel_values_flat"].data) for frame in sent] == [int(len(part) > 0) for part in kept]
    assert report.encoded_tiles == sum(len(part) > 0 for part in kept) <= report.tiles
    text = engines.large_reference.tokenizer.decode(outcome.prompt["prompt_token_ids"])
    assert text.count("<img>") == len(kept)
