"""Reading off an engine request what rules a guide or an exit out."""

import pytest
import torch
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.inputs import MultiModalKwargsItem
from vllm.sampling_params import StructuredOutputsParams

from tests.support.prompts import make_prompt
from vllm_sgl.core import Facts, Reason, VisualItem
from vllm_sgl.request.client_request import Asked
from vllm_sgl.request.facts import FactsReader
from vllm_sgl.visual.fields import FIELDS
from vllm_sgl.visual.tiles import Tiles, square_tiles

CONTEXT = 64  # of the large model; the prompt has 15 tokens


TILES = {"image": Tiles("pixel_values_flat", square_tiles(1))}
READER = FactsReader({"image": "pixel_values_flat"}, CONTEXT, TILES)


def read(prompt=None, params=None, lora=None, **asked):
    prompt = make_prompt() if prompt is None else prompt
    return READER.read(prompt, params or SamplingParams(max_tokens=8), Asked(**asked), lora)


async def streaming_input():
    yield "part"


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_an_item_that_is_a_hash_alone_is_refused(modality):
    """The large engine has no cache to look it up in, and would end."""
    prompt = make_prompt(other=13)
    prompt["mm_kwargs"][modality][0] = None
    with pytest.raises(VLLMValidationError, match=f"{modality}: .* received the hash of one alone"):
        READER.check(prompt)


@pytest.mark.parametrize("modality", ["image", "audio"])
@pytest.mark.parametrize("name", FIELDS)
def test_fields_that_only_the_rewriter_sets_are_refused(name, modality):
    """Whether the request is guided or not: the model would believe them."""
    prompt = make_prompt(other=13)
    given = prompt["mm_kwargs"][modality][0]
    given[name] = given["pixel_values_flat"]
    with pytest.raises(VLLMValidationError, match=f"{modality}: .* received {name}, which is set here alone"):
        READER.check(prompt)


def test_items():
    assert READER.items(make_prompt()) == (
        VisualItem("image", 5, 1, least=0),
        VisualItem("image", 3, 1, least=1),
    )


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        (lambda item: None, None),
        (lambda item: 5 if item["pixel_values_flat"].data[0, 0] == 1 else 3, None),
        (lambda item: 5, r"image 1: expected pixels of the 3 visual tokens .* would make 5 of those"),
        (lambda item: 0, "image 0: expected pixels of the 5 visual tokens .* would make 0 .*mm_processor_kw"),
    ],
    ids=["as the prompt says", "right", "the second wrong", "not taken"],
)
def test_pixels_that_are_not_those_of_the_prompt(encoded, text):
    reader = FactsReader({"image": "pixel_values_flat"}, CONTEXT, encoded={"image": encoded})
    if text is None:
        reader.check(make_prompt())
        return
    with pytest.raises(VLLMValidationError, match=text):
        reader.check(make_prompt())


@pytest.mark.parametrize("prompt", [streaming_input(), "text", {"type": "token", "prompt_token_ids": [1]}])
def test_prompts_without_pixels_pass(prompt):
    FactsReader({"image": "pixel_values_flat"}, CONTEXT, encoded={"image": lambda item: 0}).check(prompt)


def test_ordinary_request():
    items = (VisualItem("image", 5, 1, least=0), VisualItem("image", 3, 1, least=1))
    assert read() == Facts(visual_tokens=(5, 3), tiles=8, prompt_tokens=15, max_tokens=8, items=items)


@pytest.mark.parametrize(("asked", "most"), [(None, 49), (8, 8), (49, 49), (1000, 49)])
def test_answer_is_bounded_by_the_room_that_the_unpruned_prompt_leaves(asked, most):
    assert read(params=SamplingParams(max_tokens=asked)).max_tokens == most


@pytest.mark.parametrize(
    ("params", "forced"),
    [
        ({}, 0),
        ({"min_tokens": 3}, 3),
        ({"ignore_eos": True}, 8),
        ({"ignore_eos": True, "min_tokens": 3}, 8),
        ({"ignore_eos": True, "max_tokens": None}, 49),
    ],
    ids=str,
)
def test_how_long_an_answer_is_forced_on(params, forced):
    found = read(params=SamplingParams(**{"max_tokens": 8, **params}))
    assert (found.forced_tokens, found.no_exit) == (forced, None)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ({"type": "token", "prompt_token_ids": [1]}, Reason.NO_IMAGE),
        ({"type": "embeds", "prompt_embeds": torch.zeros(1, 2)}, Reason.IMAGE_EMBEDDINGS),
        ({"type": "enc_dec"}, Reason.UNSUPPORTED_MODALITY),
        ("text", Reason.UNRENDERED_PROMPT),
        ({"prompt": "text"}, Reason.UNRENDERED_PROMPT),
        ([1, 2, 3], Reason.UNRENDERED_PROMPT),
        (streaming_input(), Reason.UNRENDERED_PROMPT),
        ({**make_prompt(), "mm_placeholders": {"image": []}}, Reason.NO_IMAGE),
        (make_prompt(other=13), Reason.UNSUPPORTED_MODALITY),
    ],
    ids=[
        "text",
        "embeddings",
        "encoder",
        "string",
        "unrendered",
        "tokens",
        "stream",
        "no image",
        "audio too",
    ],
)
def test_what_is_not_ours(prompt, reason):
    assert read(prompt) == Facts(bypass=reason)


@pytest.mark.parametrize("missing", [0, 1])
def test_image_without_pixels(missing):
    prompt = make_prompt()
    items = list(prompt["mm_kwargs"]["image"])
    items[missing] = MultiModalKwargsItem({"image_embeds": items[missing]["pixel_values_flat"]})
    found = read({**prompt, "mm_kwargs": {"image": items}})
    assert (found.bypass, found.visual_tokens) == (Reason.IMAGE_EMBEDDINGS, (5, 3))


def test_prompt_that_leaves_no_room_is_left_to_vllm():
    prompt = make_prompt()
    prompt["prompt_token_ids"] += [1] * (CONTEXT - 15)
    assert read(prompt).bypass == Reason.TOO_LONG


@pytest.mark.parametrize("prompt", [None, {"type": "token", "prompt_token_ids": [1]}], ids=["image", "text"])
@pytest.mark.parametrize(
    ("params", "context", "reason"),
    [
        (SamplingParams(prompt_logprobs=1), {}, Reason.PROMPT_LOGPROBS),
        (SamplingParams(prompt_logprobs=0), {}, Reason.PROMPT_LOGPROBS),
        (SamplingParams(), {"beam_search": True}, Reason.BEAM_SEARCH),
    ],
    ids=["prompt_logprobs", "prompt_logprobs 0", "beam search"],
)
def test_what_bypasses(prompt, params, context, reason):
    assert read(prompt, params, **context).bypass == reason


@pytest.mark.parametrize(
    ("params", "context", "lora", "reason"),
    [
        (SamplingParams(n=2, temperature=1), {}, None, Reason.N),
        (SamplingParams(logprobs=0), {}, None, Reason.LOGPROBS),
        (SamplingParams(), {"tools": True}, None, Reason.TOOLS),
        (
            SamplingParams(structured_outputs=StructuredOutputsParams(json_object=True)),
            {},
            None,
            Reason.STRUCTURED_OUTPUT,
        ),
        (SamplingParams(), {}, object(), Reason.LORA),
        (SamplingParams(extra_args={"other": 1}), {}, None, Reason.SAMPLING),
        (SamplingParams(), {"seen": False}, None, Reason.UNSEEN),
    ],
    ids=["n", "logprobs", "tools", "structured output", "lora", "sampling", "unseen"],
)
def test_what_rules_an_exit_out(params, context, lora, reason):
    found = read(None, params, lora, **context)
    assert (found.no_exit, found.bypass) == (reason, None)


def test_an_engine_that_changes_every_answer_rules_exits_out():
    reader = FactsReader({"image": "pixel_values_flat"}, CONTEXT, exits=False)
    assert reader.read(make_prompt(), SamplingParams(), Asked(), None).no_exit == Reason.SAMPLING
    assert reader.read(make_prompt(), SamplingParams(n=2), Asked(), None).no_exit == Reason.N
