"""A small model whose attention or K cache cannot be read is refused when the capture is installed."""

from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from vllm.config.cache import CacheDType
from vllm.model_executor.layers.attention import Attention
from vllm.v1.attention.backend import AttentionType
from vllm.v1.kv_cache_interface import FullAttentionSpec

from vllm_sgl.host.worker.attention import decoder_layers


def runner(*has_sink, cache_dtype="auto", stored=torch.bfloat16):
    layers = {}
    for number, has in enumerate(has_sink):
        layer = Attention.__new__(Attention)
        torch.nn.Module.__init__(layer)
        layer.attn_type, layer.has_sink = AttentionType.DECODER, has
        layer.kv_cache = torch.zeros(1, dtype=stored)
        layers[f"layer.{number}"] = layer
    spec = FullAttentionSpec(block_size=16, num_kv_heads=1, head_size=16, dtype=torch.float32)
    return SimpleNamespace(
        compilation_config=SimpleNamespace(static_forward_context=layers),
        kv_cache_config=SimpleNamespace(kv_cache_groups=[SimpleNamespace(kv_cache_spec=spec)]),
        cache_config=SimpleNamespace(cache_dtype=cache_dtype),
    )


def test_layers_without_sinks():
    assert len(decoder_layers(runner(False, False))) == 2


def test_one_layer_with_sinks():
    with pytest.raises(NotImplementedError, match=r"attention sinks.*another --sgl-small"):
        decoder_layers(runner(False, True))


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("cache_dtype", ["auto", "bfloat16"])
def test_plain_floats(cache_dtype, stored):
    assert len(decoder_layers(runner(False, cache_dtype=cache_dtype, stored=stored))) == 1


@pytest.mark.parametrize("cache_dtype", sorted(set(get_args(CacheDType)) - {"auto", "float16", "bfloat16"}))
def test_every_other_cache_of_vllm_is_refused(cache_dtype):
    """Whatever this vLLM knows: what is allowed is listed, not what is refused."""
    with pytest.raises(NotImplementedError, match=rf"kv_cache_dtype='{cache_dtype}'.*the small model's own"):
        decoder_layers(runner(False, cache_dtype=cache_dtype))


def test_what_is_stored_decides_too():
    """A checkpoint may ask for fp8 where nobody set a dtype; vLLM stores it as bytes."""
    with pytest.raises(NotImplementedError, match=r"stored as torch\.uint8"):
        decoder_layers(runner(False, stored=torch.uint8))
