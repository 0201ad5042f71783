"""The checkpoints that other tests stand on: same bytes every time, a usable tokenizer, tiling."""

import json
import sys
from dataclasses import replace
from itertools import chain

import pytest
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer

from tests.support.images import random_image
from tests.support.rendering import pixel_values
from tools.internvl_reference.tiling import Tiling
from tools.tiny_internvl import (
    DECODER_PAIRS,
    LARGE_LLAMA,
    LARGE_QWEN2,
    SMALL_LLAMA,
    SMALL_QWEN2,
    TinySpec,
    __main__,
    build,
    build_pair,
)

PRESETS = (SMALL_QWEN2, LARGE_QWEN2, SMALL_LLAMA, LARGE_LLAMA, *chain(*DECODER_PAIRS.values()))


@pytest.fixture(scope="module")
def small_path(tmp_path_factory):
    return build(SMALL_QWEN2, tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def tokenizer(small_path):
    return AutoTokenizer.from_pretrained(small_path, trust_remote_code=True)


@pytest.mark.parametrize("spec", PRESETS, ids=lambda spec: spec.name)
def test_same_spec_gives_the_same_bytes(spec, tmp_path):
    first, second = build(spec, tmp_path / "first"), build(spec, tmp_path / "second")
    names = sorted(file.name for file in first.iterdir())
    assert names == sorted(file.name for file in second.iterdir())
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_another_seed_gives_other_weights_and_the_same_tokenizer(small_path, tmp_path):
    other = build(replace(SMALL_QWEN2, seed=99), tmp_path)
    ours, theirs = (load_file(path / "model.safetensors") for path in (small_path, other))
    assert ours.keys() == theirs.keys()
    assert all((ours[name] != theirs[name]).any() for name in ours)
    assert (small_path / "tokenizer.json").read_text() == (other / "tokenizer.json").read_text()


def test_another_layer_leaves_the_other_tensors_alone(small_path, tmp_path):
    deeper = load_file(
        build(replace(SMALL_QWEN2, layers=3), tmp_path) / "model.safetensors",
    )
    for name, tensor in load_file(small_path / "model.safetensors").items():
        assert deeper[name].equal(tensor), name


def test_configuration_is_found_through_auto_map(small_path):
    config = AutoConfig.from_pretrained(small_path, trust_remote_code=True)
    assert config.model_type == "internvl_chat"
    assert config.architectures == ["InternVLChatModel"]
    assert config.llm_config.architectures == ["Qwen2ForCausalLM"]
    assert config.vision_config.image_size == config.force_image_size == SMALL_QWEN2.image_size
    assert str(config.llm_config.dtype) == "torch.float32"


def test_special_tokens_are_single_tokens(tokenizer):
    for token in ("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"):
        ids = tokenizer(token, add_special_tokens=False).input_ids
        assert ids == [tokenizer.convert_tokens_to_ids(token)]
    assert tokenizer.eos_token == "<|im_end|>"
    assert 300 <= len(tokenizer) <= 600


@pytest.mark.parametrize("prompt", ["<image>", "a<image>b", " <image>,", "<<image>>", "?<image>\n"])
def test_image_target_keeps_its_tokens_in_any_surroundings(tokenizer, prompt):
    target = tokenizer("<image>", add_special_tokens=False).input_ids
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    windows = [ids[start : start + len(target)] for start in range(len(ids))]
    assert windows.count(target) == 1


def test_text_survives_a_round_trip(tokenizer):
    text = "What is written?\n  Ünïcode, tabs\tand digits 1234 <b>"
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_chat_template_is_chatml(tokenizer):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_pair_shares_tokenizer_and_tiling_but_not_size(tmp_path):
    small, large = build_pair(tmp_path)
    assert (small / "tokenizer.json").read_text() == (large / "tokenizer.json").read_text()
    configs = [json.loads((path / "config.json").read_text()) for path in (small, large)]
    for field in ("template", "force_image_size", "max_dynamic_patch", "downsample_ratio"):
        assert configs[0][field] == configs[1][field]
    assert configs[0]["llm_config"]["hidden_size"] < configs[1]["llm_config"]["hidden_size"]


def test_pair_refuses_different_tiling(tmp_path):
    with pytest.raises(ValueError, match="image_size is 112 and 56"):
        build_pair(tmp_path, large=replace(LARGE_QWEN2, image_size=56))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head_dim": 64}, "must equal heads"),
        ({"kv_heads": 3}, "multiple of kv_heads"),
        ({"image_size": 98}, "twice the patch_size"),
    ],
)
def test_impossible_specs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL_QWEN2, **change)


def test_images_of_different_shape_have_different_tile_counts(small_path):
    config = json.loads((small_path / "config.json").read_text())
    sizes = [(112, 112), (120, 240), (360, 120), (500, 125), (300, 200), (100, 500)]
    counts = [len(pixel_values(random_image(0, *size), config)) for size in sizes]
    assert counts == [1, 3, 4, 5, 7, 6]
    assert max(counts) * SMALL_QWEN2.tokens_per_tile == SMALL_QWEN2.max_visual_tokens == 112


def test_tile_grid_takes_the_larger_of_two_equal_shapes_for_large_images():
    tiling = Tiling(side=112, cells=4, min_tiles=1, max_tiles=6, thumbnail=True)
    grids = [tiling.grid(side, side) for side in (100, 158, 159, 1000)]
    assert grids == [(1, 1), (1, 1), (2, 2), (2, 2)]


def test_command_line_writes_the_default_pair(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tiny_internvl", str(tmp_path)])
    __main__.main()
    paths = capsys.readouterr().out.split()
    assert [path.rsplit("/", 1)[1] for path in paths] == [SMALL_QWEN2.name, LARGE_QWEN2.name]


def test_spec_fields_reach_the_configuration(tmp_path):
    spec = TinySpec("odd", "llama", hidden=64, layers=1, heads=2, kv_heads=1, image_size=56)
    config = json.loads((build(spec, tmp_path) / "config.json").read_text())
    assert config["llm_config"]["num_key_value_heads"] == 1
    assert config["vision_config"]["image_size"] == config["force_image_size"] == 56


@pytest.mark.parametrize("name", DECODER_PAIRS)
def test_published_layouts(name, tmp_path):
    """Configs load through their remote code, tensors have the decoder's own names."""
    small, _ = DECODER_PAIRS[name]
    path = build(small, tmp_path)
    config = AutoConfig.from_pretrained(path, trust_remote_code=True)
    assert config.llm_config.num_key_value_heads == small.kv_heads
    names = {
        "internlm2": ("attention.wqkv", "feed_forward.w1", "tok_embeddings", "language_model.output"),
        "phi3": ("self_attn.qkv_proj", "mlp.gate_up_proj", "embed_tokens", "lm_head"),
        "qwen3": ("self_attn.q_norm", "self_attn.k_norm"),
    }
    tensors = load_file(path / "model.safetensors")
    for part in names.get(name, ("self_attn.q_proj",)):
        assert any(part in tensor for tensor in tensors), part
    if name == "phi3":
        assert config.llm_config.sliding_window == 262144
    if name == "internlm2":
        slow = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
        assert not slow.is_fast
        assert len(slow) == config.llm_config.vocab_size
        text = "<|im_start|>user\nWhat is written on the sign? Ünïcode 12<|im_end|>\n"
        assert slow.decode(slow(text, add_special_tokens=False).input_ids).replace(" ", "") == text.replace(
            " ", ""
        )
        assert slow("a").input_ids[0] == slow.bos_token_id
