"""What a KV cache holds where its checkpoint has a say, asked of vLLM's own code where that can be."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from vllm import EngineArgs

from vllm_sgl.config import SGLConfig
from vllm_sgl.engine.carried import use_sgl
from vllm_sgl.engine.start import small_config
from vllm_sgl.host.start.kv_cache import plain, stored_as
from vllm_sgl.host.start.kv_need import sequence_bytes

FP8 = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False}
COMPRESSED = {"quant_method": "compressed-tensors", "format": "dense", "config_groups": {}, "ignore": []}


def config(quantization):
    return SimpleNamespace(quantization_config=quantization)


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        (None, "auto"),
        ({"quant_method": "awq", "bits": 4}, "auto"),
        (COMPRESSED, "auto"),
        ({**COMPRESSED, "kv_cache_scheme": None}, "auto"),
        ({**COMPRESSED, "kv_cache_scheme": FP8}, "fp8"),
        ({"quant_method": "modelopt", "kv_cache_scheme": FP8}, "fp8_e4m3"),
        ({"quant_method": "modelopt", "quantization": {"kv_cache_quant_algo": "FP8"}}, "fp8_e4m3"),
        ({"quant_method": "modelopt", "quantization": {"kv_cache_quant_algo": None}}, "auto"),
    ],
    ids=str,
)
def test_a_checkpoint_may_ask_for_less(quantization, expected):
    assert stored_as("auto", config(quantization)) == expected
    assert stored_as("bfloat16", config(quantization)) == "bfloat16"  # what the user says stands
    assert stored_as("auto", SimpleNamespace()) == "auto"


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.bfloat16, "bfloat16"), (torch.float16, "float16"), ("half", "float16"),
        ("bfloat16", "bfloat16"), (torch.float32, None), ("auto", None),
    ],
)  # fmt: skip
def test_names_of_plain_caches(dtype, expected):
    assert plain(dtype) == expected


@pytest.fixture
def quantised(qwen2_pair, tmp_path):
    """The small checkpoint, whose KV cache is to be fp8 by its own config."""
    path = shutil.copytree(qwen2_pair[0], tmp_path / "small")
    file = path / "config.json"
    scheme = {**COMPRESSED, "kv_cache_scheme": FP8}
    file.write_text(json.dumps({**json.loads(file.read_text()), "quantization_config": scheme}))
    return path


def small_of(pair, small_args=None, dtype="bfloat16"):
    settings = SGLConfig(small=str(pair[0]), small_args=small_args or {})
    arguments = EngineArgs(str(pair[1]), trust_remote_code=True, dtype=dtype, max_model_len=640)
    use_sgl(arguments, settings)
    return small_config(arguments.create_engine_config(), settings)


def test_the_small_engines_cache_can_be_read(qwen2_pair, quantised):
    """Else it would be refused once both engines are loaded."""
    pair = quantised, qwen2_pair[1]
    assert small_of(pair).cache_config.cache_dtype == "bfloat16"
    assert small_of(pair, {"kv_cache_dtype": "float16"}).cache_config.cache_dtype == "float16"
    assert small_of(qwen2_pair).cache_config.cache_dtype == "auto"


def test_the_plan_counts_what_a_checkpoint_asks_for(qwen2_pair, quantised):
    whole, fp8 = (small_of((path, qwen2_pair[1])) for path in (qwen2_pair[0], quantised))
    fp8.cache_config.cache_dtype = "auto"  # as a large engine's is
    assert 2 * sequence_bytes(fp8) == sequence_bytes(whole) > 0
