"""Models of true size: parameter counts, visual tokens, and that transformers and vLLM take the files."""

import json
from types import SimpleNamespace

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, InternVLForConditionalGeneration
from vllm.config import ModelConfig
from vllm.multimodal import MULTIMODAL_REGISTRY

from benchmarks.true_size import (
    INTERNVL2,
    INTERNVL3,
    INTERNVL3_5,
    MODELS,
    InternVLSize,
    TransformersSize,
    __main__,
    build,
    config,
)
from tests.support.images import random_image
from tools.internvl_reference.native_checkpoint import native_config
from vllm_sgl.host.start.device import weight_bytes

INTERNVL = [name for name, size in MODELS.items() if isinstance(size, InternVLSize)]
OTHERS = [name for name, size in MODELS.items() if isinstance(size, TransformersSize)]
#: Repositories state two or three digits.
TOLERANCE = 0.005


def count(model: torch.nn.Module) -> int:
    """Parameters; those that two layers share count once."""
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", INTERNVL)
def test_parameter_count_is_the_published_one(name):
    size = MODELS[name]
    assert size.parameters() / 1e9 == pytest.approx(size.billions, rel=TOLERANCE)


@pytest.mark.parametrize("name", MODELS)
def test_a_memory_plan_knows_the_weights_that_are_not_there(name, tmp_path):
    """Else a guided server of dummy weights has no room for them on a GPU."""
    path = build(MODELS[name], tmp_path, "bfloat16")
    model = SimpleNamespace(model=str(path), revision=None)
    parallel = SimpleNamespace(tensor_parallel_size=1, pipeline_parallel_size=1)
    found = weight_bytes(SimpleNamespace(model_config=model, parallel_config=parallel))
    assert found / 2e9 == pytest.approx(MODELS[name].billions, rel=TOLERANCE)


@pytest.mark.parametrize("name", INTERNVL)
def test_transformers_counts_the_same_from_the_config(name):
    size = MODELS[name]
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(native_config(config(size), image_token_id=1))
    assert count(model) == size.parameters()


@pytest.mark.parametrize("name", OTHERS)
def test_transformers_counts_the_published_number_of_parameters(name):
    size = MODELS[name]
    fields = config(size)
    loaded = transformers.CONFIG_MAPPING[size.family].from_dict(fields)
    with torch.device("meta"):
        model = getattr(transformers, fields["architectures"][0])(loaded)
    assert count(model) / 1e9 == pytest.approx(size.billions, rel=TOLERANCE)


@pytest.mark.parametrize("name", INTERNVL)
def test_internvl_files_load_without_network_or_weights(name, tmp_path):
    size = MODELS[name]
    path = build(size, tmp_path)
    loaded = AutoConfig.from_pretrained(path, trust_remote_code=True)
    assert loaded.architectures == ["InternVLChatModel"]
    assert loaded.llm_config.architectures == [size.decoder.architecture]
    assert loaded.llm_config.num_key_value_heads == size.decoder.num_key_value_heads
    assert loaded.llm_config.rope_parameters["rope_theta"] == size.decoder.rope_theta
    assert loaded.vision_config.qk_normalization == size.vision.qk_normalization
    assert not list(path.glob("*.safetensors"))
    written = json.loads((path / "config.json").read_text())
    assert len(AutoTokenizer.from_pretrained(path)) <= written["llm_config"]["vocab_size"]


@pytest.mark.parametrize("name", MODELS)
def test_vllm_takes_the_files(name, tmp_path):
    """Architecture, processor, and what an image costs: all that comes before weights."""
    size, largest = MODELS[name], MODELS[name].max_visual_tokens
    path = str(build(size, tmp_path))
    model = ModelConfig(model=path, tokenizer=path, trust_remote_code=True, max_model_len=2048)
    assert model.architecture == config(size)["architectures"][0]
    processor = MULTIMODAL_REGISTRY.create_processor(model)
    assert processor.info.get_max_image_tokens() == largest
    assert len(processor.info.get_tokenizer()) <= model.get_vocab_size()


#: Visual tokens of 672 x 448 pixels: six tiles and a thumbnail of 256; 28 or 32 pixels a side; the image at
#: 27 x 27 and, on a canvas of 54 x 54, its own 36 rows with a newline each.
RENDERED = {
    "InternVL2-2B": 7 * 256,
    "Qwen2-VL-2B": 24 * 16,
    "Qwen2.5-VL-3B": 24 * 16,
    "Qwen3-VL-2B": 21 * 14,
    "LLaVA-OV-0.5B": 27 * 27 + 36 * (54 + 1),
}


@pytest.mark.parametrize("name", RENDERED)
def test_a_chat_about_an_image_is_rendered(name, tmp_path):
    """The small tokenizer's special tokens are those that config and processor look for."""
    path = str(build(MODELS[name], tmp_path))
    model = ModelConfig(model=path, tokenizer=path, trust_remote_code=True)
    processor = MULTIMODAL_REGISTRY.create_processor(model)
    content = [{"type": "image"}, {"type": "text", "text": "What?"}]
    if name.startswith("InternVL"):  # its template takes strings
        content = "<image>\nWhat?"
    prompt = processor.info.get_tokenizer().apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    data = processor.info.parse_mm_data({"image": random_image(0, 672, 448)})
    rendered = processor(prompt, mm_items=data, hf_processor_mm_kwargs={})
    (place,) = rendered["mm_placeholders"]["image"]
    assert place.get_num_embeds() == RENDERED[name]
    assert len(rendered["prompt_token_ids"]) > place.length + 5


def test_one_size_by_name(tmp_path, capsys):
    __main__.main(["Qwen3-VL-32B", str(tmp_path)])
    assert "Qwen/Qwen3-VL-32B-Instruct, 33.4 B parameters" in capsys.readouterr().out
    written = json.loads((tmp_path / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert written["image_token_id"] == tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert config(MODELS["Qwen3-VL-32B"])["image_token_id"] == 151655


def test_twelve_tiles_and_a_thumbnail():
    assert {MODELS[name].max_visual_tokens for name in INTERNVL} == {3328}


@pytest.mark.parametrize("sizes", [INTERNVL2, INTERNVL3, INTERNVL3_5])
def test_large_and_small_tile_alike(sizes):
    tiling = {(s.image_size, s.patch_size, s.max_dynamic_patch) for s in sizes.values()}
    assert len(tiling) == 1


def test_kv_cache_of_one_request():
    # 26B: 48 layers x 8 heads x 128 x (K, V) x 2 bytes = 192 KiB a token.
    assert INTERNVL2["26B"].decoder.kv_bytes(1) == 192 << 10
    # InternVL3.5-38B's heads are wider than hidden size / heads: 64 layers x 8 heads x 128.
    assert INTERNVL3_5["38B"].decoder.kv_bytes(1) == 256 << 10
