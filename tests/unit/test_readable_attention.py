"""A small model whose attention has sinks is refused when the capture is installed."""

from types import SimpleNamespace

import pytest
import torch
from vllm.model_executor.layers.attention import Attention
from vllm.v1.attention.backend import AttentionType
from vllm.v1.kv_cache_interface import FullAttentionSpec

from vllm_sgl.host.attention import decoder_layers


def runner(*has_sink):
    layers = {}
    for number, has in enumerate(has_sink):
        layer = Attention.__new__(Attention)
        torch.nn.Module.__init__(layer)
        layer.attn_type, layer.has_sink = AttentionType.DECODER, has
        layer.kv_cache = torch.zeros(1)
        layers[f"layer.{number}"] = layer
    spec = FullAttentionSpec(block_size=16, num_kv_heads=1, head_size=16, dtype=torch.float32)
    return SimpleNamespace(
        compilation_config=SimpleNamespace(static_forward_context=layers),
        kv_cache_config=SimpleNamespace(kv_cache_groups=[SimpleNamespace(kv_cache_spec=spec)]),
        cache_config=SimpleNamespace(cache_dtype="auto"),
    )


def test_layers_without_sinks():
    assert len(decoder_layers(runner(False, False))) == 2


def test_one_layer_with_sinks():
    with pytest.raises(NotImplementedError, match=r"attention sinks.*another --sgl-small"):
        decoder_layers(runner(False, True))
