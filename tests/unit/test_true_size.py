"""The true-size configurations: parameter counts, visual tokens, and that the files load."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, InternVLForConditionalGeneration

from benchmarks.true_size import INTERNVL2, build, config
from tools.internvl_reference.native_checkpoint import native_config

# The models' pages on Hugging Face, in billions.
PUBLISHED = {"1B": 0.94, "2B": 2.21, "26B": 25.51, "40B": 40.07, "76B": 76.26}


@pytest.mark.parametrize("name", INTERNVL2)
def test_parameter_count_is_the_published_one(name):
    assert INTERNVL2[name].parameters() / 1e9 == pytest.approx(PUBLISHED[name], rel=0.005)


@pytest.mark.parametrize("name", INTERNVL2)
def test_transformers_counts_the_same_from_the_config(name):
    size = INTERNVL2[name]
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(native_config(config(size), image_token_id=1))
    assert sum(p.numel() for p in model.parameters()) == size.parameters()


@pytest.mark.parametrize("name", INTERNVL2)
def test_files_load_without_network_or_weights(name, tmp_path):
    size = INTERNVL2[name]
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


def test_twelve_tiles_and_a_thumbnail():
    assert {size.max_visual_tokens for size in INTERNVL2.values()} == {3328}


def test_large_and_small_tile_alike():
    tiling = {(s.image_size, s.patch_size, s.max_dynamic_patch) for s in INTERNVL2.values()}
    assert len(tiling) == 1


def test_kv_cache_of_one_request():
    # 26B: 48 layers x 8 heads x 128 x (K, V) x 2 bytes = 192 KiB a token.
    assert INTERNVL2["26B"].decoder.kv_bytes(1) == 192 << 10
