"""A small model whose attention or K cache cannot be read is refused when the capture is installed."""

from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from vllm.config.cache import CacheDType
from vllm.model_executor.layers.attention import Attention
from vllm.v1.attention.backend import AttentionType
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    MambaSpec,
    MLAAttentionSpec,
    SinkFullAttentionSpec,
    SlidingWindowSpec,
)

from vllm_sgl.host.worker.attention import decoder_layers, layer_numbers

SHAPE = {"block_size": 16, "num_kv_heads": 1, "head_size": 16, "dtype": torch.float32}
FULL = FullAttentionSpec(**SHAPE)
STATES = MambaSpec(block_size=16, shapes=((4,),), dtypes=(torch.float32,))
#: To vLLM's memory these are full attention too, or nearly.
PARTIAL = (
    SlidingWindowSpec(**SHAPE, sliding_window=8),
    FullAttentionSpec(**SHAPE, sliding_window=8),
    FullAttentionSpec(**SHAPE, attention_chunk_size=8),
    MLAAttentionSpec(**SHAPE),
    SinkFullAttentionSpec(**SHAPE, sink_len=4),
)


def runner(*has_sink, cache_dtype="auto", stored=torch.bfloat16, groups=None):
    """groups: the numbers of each group's layers, and its spec; all in one of full attention for None."""
    layers = {}
    for number, has in enumerate(has_sink):
        layer = Attention.__new__(Attention)
        torch.nn.Module.__init__(layer)
        layer.attn_type, layer.has_sink = AttentionType.DECODER, has
        layer.kv_cache = torch.zeros(1, dtype=stored)
        layer.layer_name = f"layer.{number}"
        layers[layer.layer_name] = layer
    named = [
        SimpleNamespace(kv_cache_spec=spec, layer_names=[f"layer.{number}" for number in numbers])
        for numbers, spec in groups or [(range(len(has_sink)), FULL)]
    ]
    return SimpleNamespace(
        compilation_config=SimpleNamespace(static_forward_context=layers),
        kv_cache_config=SimpleNamespace(kv_cache_groups=named),
        cache_config=SimpleNamespace(cache_dtype=cache_dtype),
    )


def test_layers_without_sinks():
    assert len(decoder_layers(runner(False, False))) == 2


@pytest.mark.parametrize("other", [STATES, *PARTIAL], ids=lambda spec: type(spec).__name__)
def test_of_a_hybrid_decoder_the_layers_of_full_attention_are_read(other):
    hybrid = runner(False, False, False, groups=[([0, 2], other), ([1], FULL)])
    layers = decoder_layers(hybrid)
    assert layer_numbers(hybrid, layers) == ([1], 3)


def test_two_groups_of_full_attention():
    """The rows of a step are told by the metadata of one group."""
    with pytest.raises(NotImplementedError, match=r"one KV cache group .* it has 2, .* another --sgl-small"):
        decoder_layers(runner(False, False, groups=[([0], FULL), ([1], FULL)]))


@pytest.mark.parametrize("spec", [STATES, *PARTIAL], ids=lambda spec: type(spec).__name__)
def test_no_group_of_full_attention(spec):
    with pytest.raises(NotImplementedError, match=r"it has 0, .* choose another --sgl-small"):
        decoder_layers(runner(False, groups=[([0], spec)]))


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
