"""vLLM's decoder attention layers: finding them, listening to them, reading their paged K cache."""

from collections.abc import Callable, Collection
from functools import partial
from itertools import chain
from typing import Any

import torch
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.models.utils import extract_layer_index
from vllm.v1.attention.backend import AttentionType
from vllm.v1.kv_cache_interface import FullAttentionSpec

from vllm_sgl.host.patch import check_signature

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = (
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner.compilation_config.static_forward_context",
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner.kv_cache_config.kv_cache_groups.kv_cache_spec",
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner.kv_cache_config.kv_cache_groups.layer_names",
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner.cache_config.cache_dtype",
    "vllm.v1.worker.utils:AttentionGroup.metadata_builders",
    "vllm.v1.worker.utils:AttentionGroup.layer_names",
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner.attn_groups",
    "vllm.v1.attention.backends.cpu_attn:CPUAttentionMetadataBuilder.isa",
    "vllm.v1.attention.backends.cpu_attn:CPUAttentionMetadataBuilder._set_isa_to_layers(layer_names)",
    "vllm.model_executor.layers.attention:Attention.attn_type",
    "vllm.model_executor.layers.attention:Attention.head_size",
    "vllm.v1.attention.backend:AttentionImpl.scale",
    "vllm.v1.attention.backend:AttentionImpl.forward(layer, query, key, value, kv_cache, attn_metadata)",
    "vllm.v1.attention.backends.cpu_attn:CPUAttentionMetadata.block_table",
    "vllm.v1.attention.backends.cpu_attn:CPUAttentionMetadata.seq_lens",
    "vllm.v1.attention.backends.cpu_attn:CPUAttentionMetadata.query_start_loc",
    "vllm.v1.attention.backends.flash_attn:FlashAttentionMetadata.block_table",
    "vllm.v1.attention.backends.flash_attn:FlashAttentionMetadata.seq_lens",
    "vllm.v1.attention.backends.flash_attn:FlashAttentionMetadata.query_start_loc",
    "vllm.v1.attention.backends.triton_attn:TritonAttentionMetadata.block_table",
    "vllm.v1.attention.backends.triton_attn:TritonAttentionMetadata.seq_lens",
    "vllm.v1.attention.backends.triton_attn:TritonAttentionMetadata.query_start_loc",
)

#: Called after a layer's attention: (layer, query, kv_cache, attn_metadata).
Listener = Callable[[Attention, torch.Tensor, torch.Tensor, Any], None]

_FORWARD = ("layer", "query", "key", "value", "kv_cache", "attn_metadata", "output")
#: CPU cache layouts whose K is stored transposed inside a block ("amx" packs tiles instead).
_CPU_TRANSPOSED = ("vec", "vec16")
#: Values of ``kv_cache_dtype`` that store K as it is. Everything else is quantised, in one way or another.
_PLAIN = ("auto", "float16", "bfloat16", "float32")
_READABLE = {torch.float16, torch.bfloat16, torch.float32}
_K_FIRST_HALF = ("FLASH_ATTN", "TRITON_ATTN")


def decoder_layers(runner: Any) -> list[Attention]:
    """The language model's layers of full attention on this worker, in model order. Those of a hybrid decoder
    are some of its layers; the others, with windows or without attention, are not read.

    Raises:
        NotImplementedError: where such layers are not all those of one KV cache group, have attention sinks,
            or have a KV cache that is quantised.
    """
    groups = runner.kv_cache_config.kv_cache_groups
    full = [group for group in groups if _is_full(group.kv_cache_spec)]
    if len(full) != 1:
        raise NotImplementedError(
            "the small model must have one KV cache group of layers with full attention (no windows, and K "
            f"itself, not MLA's latents); it has {len(full)}, of the groups "
            f"{[type(g.kv_cache_spec).__name__ for g in groups]}: choose another --sgl-small"
        )
    names = set(full[0].layer_names)
    layers = [
        layer
        for name, layer in runner.compilation_config.static_forward_context.items()
        if name in names and isinstance(layer, Attention) and layer.attn_type == AttentionType.DECODER
    ]
    if any(layer.has_sink for layer in layers):
        raise NotImplementedError(
            "the small model has attention sinks, which take a share of every row that no visual token gets: "
            "choose another --sgl-small"
        )
    stored = {layer.kv_cache.dtype for layer in layers}
    if runner.cache_config.cache_dtype not in _PLAIN or not stored <= _READABLE:
        raise NotImplementedError(
            "the guide reads K from the small model's cache, which must hold plain floating-point numbers; "
            f"received kv_cache_dtype={runner.cache_config.cache_dtype!r}, stored as "
            f"{', '.join(map(str, stored))}: use the small model's own dtype, for example with "
            '--sgl-small-args \'{"kv_cache_dtype": "bfloat16"}\''
        )
    return layers


def _is_full(spec: Any) -> bool:
    """Not MLA's, sinks' and windows', which are kinds of full attention to vLLM's memory."""
    return type(spec) is FullAttentionSpec and not (spec.sliding_window or spec.attention_chunk_size)


def layer_numbers(runner: Any, layers: Collection[Attention]) -> tuple[list[int], int]:
    """The numbers of some decoder layers, and how many this worker has."""
    every = {name for group in runner.kv_cache_config.kv_cache_groups for name in group.layer_names}
    return [extract_layer_index(layer.layer_name) for layer in layers], len(every)


def use_readable_layout(runner: Any) -> None:
    """Make CPU attention store K in a layout that can be viewed.

    On AMX machines the CPU backend packs bf16 K into tiles. "vec" is its other layout for the same
    kernel; the cache is still empty when this runs. Remove when the amx layout is unpacked instead.
    """
    for group in chain.from_iterable(runner.attn_groups):
        for builder in group.metadata_builders:
            if getattr(builder, "isa", None) == "amx":
                builder.isa = "vec"
                builder._set_isa_to_layers(group.layer_names)


def key_cache_view(layer: Attention, kv_cache: torch.Tensor) -> torch.Tensor:
    """K as [blocks, kv_heads, block_size, head_dim], a view.

    kv_cache: [blocks, kv_heads, block_size, 2 * head_dim], as vLLM 0.32 hands it to every backend.
    """
    name = layer.attn_backend.get_name()
    blocks, kv_heads, block_size, twice = kv_cache.shape
    if name == "CPU_ATTN" and layer.isa in _CPU_TRANSPOSED:
        packed = kv_cache.view(blocks, kv_heads, 2, twice // 2, block_size)
        return packed[:, :, 0].transpose(-1, -2)
    if name in _K_FIRST_HALF:
        return kv_cache[..., : twice // 2]
    raise NotImplementedError(
        f"reading K from attention backend {name} (isa {getattr(layer, 'isa', None)!r}) is not "
        f"supported; supported: CPU_ATTN with isa in {_CPU_TRANSPOSED}, {', '.join(_K_FIRST_HALF)}: choose "
        'one for the small engine with --sgl-small-args \'{"attention_backend": "TRITON_ATTN"}\''
    )


def listen(layer: Attention, listener: Listener) -> None:
    """Call ``listener`` after every attention of this layer instance. No class is changed.

    Symptom without it: attention probabilities never leave the kernel. No hook of vLLM hands out a
    layer's query. The op calls ``layer.impl.forward`` through Python in eager mode and under piecewise
    CUDA graphs; a fully captured graph would skip it (the guide's mass check notices that).
    """
    check_signature(layer.impl, "forward", _FORWARD, "vllm_sgl/host/worker/attention.py")
    layer.impl.forward = partial(_forward_and_tell, layer.impl.forward, listener)


def _forward_and_tell(
    forward: Callable, listener: Listener, layer, query, key, value, kv_cache, attn_metadata, *args, **kwargs
):
    result = forward(layer, query, key, value, kv_cache, attn_metadata, *args, **kwargs)
    if attn_metadata is not None:  # None while vLLM warms up
        listener(layer, query, kv_cache, attn_metadata)
    return result
