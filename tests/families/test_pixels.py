"""Pixels of which a model's encoder would not make what the prompt has places for are known before an engine
gets them: it would end over them."""

import pytest
from vllm import EngineArgs
from vllm.exceptions import VLLMValidationError
from vllm.multimodal import MULTIMODAL_REGISTRY

from tests.support.images import random_image
from tools import tiny_internvl
from tools.tiny_families import FAMILIES, SMALL, build
from vllm_sgl.families import family_of
from vllm_sgl.request.facts import FactsReader

SIZES = [(96, 64), (300, 200), (448, 112), (60, 500)]
#: Settings of processors that a request may send, and that the model's own config does not share. Those of an
#: InternVL change the number of tiles, and with it the prompt.
QWEN = [{"merge_size": 1}, {"patch_size": 7}, {"temporal_patch_size": 1}]
SETTINGS = {
    "internvl": [],
    "internvl_hf": [],
    "llava_onevision": [{"size": {"height": 28, "width": 28}}],
    "qwen2_vl": QWEN,
    "qwen2_5_vl": QWEN,
    "qwen3_vl": QWEN,
}


@pytest.fixture(scope="module", params=SETTINGS)
def family(request, tmp_path_factory):
    """(name, the model's processor, what reads its requests)"""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "internvl":
        path = tiny_internvl.build(tiny_internvl.SMALL_QWEN2, folder)
    else:
        path = build(FAMILIES[request.param], SMALL, folder)
    model = EngineArgs(str(path), trust_remote_code=True).create_model_config()
    return (
        request.param, MULTIMODAL_REGISTRY.create_processor(model), FactsReader.of(family_of(model), model)
    )  # fmt: skip


def rendered(processor, size, settings=None):
    media = processor.info.parse_mm_data({"image": [random_image(0, *size)]})
    text = processor.dummy_inputs.get_dummy_text({"image": 1})
    return processor(text, media, hf_processor_mm_kwargs=settings or {})


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_what_the_model_takes(family, size):
    _, processor, reader = family
    reader.check(rendered(processor, size))


@pytest.mark.parametrize("family", [name for name, sent in SETTINGS.items() if sent], indirect=True)
def test_what_it_does_not_take(family):
    name, processor, reader = family
    refusal = r"image 0: expected pixels of the .* drop mm_processor_kwargs"
    for settings in SETTINGS[name]:
        prompt = rendered(processor, (300, 200), settings)
        with pytest.raises(VLLMValidationError, match=refusal):
            reader.check(prompt)
