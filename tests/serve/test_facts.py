"""What is read off an engine request, for the rows of the contract's table that these models cannot serve."""

import pytest
import torch
from vllm import SamplingParams
from vllm.multimodal.inputs import PlaceholderRange

from vllm_sgl.serve import facts
from vllm_sgl.serve.context import RequestContext

MARKERS = torch.tensor([False, *[True] * 16, False])
PIXELS = {"pixel_values_flat": None}


def prompt(items=(PIXELS,), places=1, modality="image"):
    """A rendered prompt of 60 tokens; each image has 16 visual tokens between two markers."""
    ranges = [PlaceholderRange(offset=2 + 20 * i, length=18, is_embed=MARKERS) for i in range(places)]
    return {
        "type": "multimodal",
        "prompt_token_ids": [0] * 60,
        "mm_placeholders": {modality: ranges},
        "mm_kwargs": {modality: list(items)},
    }


def read(given, params=None, context=None, lora=None):
    params = params or SamplingParams(max_tokens=8)
    return facts.read(given, params, context or RequestContext(), lora, 1024)


def test_plain_image_request():
    known = read(prompt((PIXELS, PIXELS), 2))
    assert (known.visual_tokens, known.prompt_tokens, known.max_tokens) == ((16, 16), 60, 8)
    assert known.bypass is None
    assert known.no_exit is None


def test_unbounded_max_tokens_is_what_the_context_leaves():
    assert read(prompt(), SamplingParams(max_tokens=None)).max_tokens == 1024 - 60


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"type": "token", "prompt_token_ids": [1, 2]}, "no_image"),
        (prompt((), 0), "no_image"),
        (prompt(modality="video"), "unsupported_modality"),
        ({**prompt(), "mm_placeholders": {"image": [1], "video": [1]}}, "unsupported_modality"),
        ({"type": "embeds", "prompt_embeds": None}, "image_embeddings"),
        (prompt(({"image_embeds": None},)), "image_embeddings"),
        (prompt((PIXELS, {"image_embeds": None}), 2), "image_embeddings"),
        (prompt((None,)), "image_embeddings"),
        ({"type": "enc_dec"}, "unsupported_modality"),
        ({"prompt": "not rendered"}, "unrendered_prompt"),
        ("not rendered", "unrendered_prompt"),
    ],
)
def test_bypass_for_what_the_prompt_is(given, reason):
    assert read(given).bypass == reason


@pytest.mark.parametrize("given", [prompt(), "not rendered", prompt(({"image_embeds": None},))])
def test_bypass_for_what_is_asked_comes_first(given):
    assert read(given, context=RequestContext(beam_search=True)).bypass == "beam_search"
    assert read(given, SamplingParams(prompt_logprobs=0)).bypass == "prompt_logprobs"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lora": object()}, "lora"),
        ({"params": SamplingParams(n=2)}, "n"),
        ({"params": SamplingParams(logprobs=0)}, "logprobs"),
        ({"params": SamplingParams(logprobs=-1)}, "logprobs"),
        ({"context": RequestContext(tools=True)}, "tools"),
        ({"context": RequestContext(tools=True), "lora": object()}, "tools"),
    ],
)
def test_no_exit(changes, reason):
    known = read(prompt(), **changes)
    assert known.no_exit == reason
    assert known.bypass is None
