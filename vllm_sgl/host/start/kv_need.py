"""What a sequence takes in an engine's KV cache, by vLLM's own arithmetic, before the engine is there.

A layer has the KV cache that its kind needs: of the whole sequence, of a window, of a latent (MLA), or a
recurrent state. vLLM asks the layers of a loaded model; here the config says of which kind they are. Layers
that share another one's cache, or have heads of another size than the rest, are counted as the rest.
"""

from collections.abc import Sequence
from typing import Any

from vllm.config import VllmConfig
from vllm.distributed.utils import get_pp_indices
from vllm.model_executor.models import ModelRegistry
from vllm.utils.torch_utils import kv_cache_dtype_str_to_dtype
from vllm.v1.core.kv_cache_utils import estimate_max_model_len, max_memory_usage_bytes
from vllm.v1.kv_cache_interface import (
    ChunkedLocalAttentionSpec,
    FullAttentionSpec,
    KVCacheSpec,
    MambaSpec,
    MLAAttentionSpec,
    SlidingWindowSpec,
)

from vllm_sgl.host.start.kv_cache import stored_as

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = (
    "vllm.config.model:ModelConfig.get_num_kv_heads(parallel_config)",
    "vllm.config.model:ModelConfig.get_head_size",
    "vllm.config.model:ModelConfig.use_mla",
    "vllm.config.model:ModelConfig.is_hybrid",
)

#: Names of layer types in transformers' configs that see a part of the sequence.
_WINDOWS, _CHUNKS = "sliding_attention", "chunked_attention"
#: Those that keep a state of fixed size in place of keys and values.
_RECURRENT = ("linear_attention", "mamba", "mamba2", "conv", "recurrent")
#: vLLM's attention backends take blocks of multiples of this.
_KERNEL_BLOCK = 16


def sequence_bytes(config: VllmConfig) -> int:
    """KV cache of one sequence of full length, in whole blocks, on the device of the fullest pipeline stage.
    Caches packed tighter than their dtype need less."""
    return max(max_memory_usage_bytes(config, specs) for specs in _by_stage(config))


def longest_sequence(config: VllmConfig, room: int) -> int:
    """Tokens of the longest sequence whose KV cache takes at most ``room`` bytes; 0 if none does."""
    stages = [{str(i): spec for i, spec in enumerate(specs)} for specs in _by_stage(config)]
    return min(estimate_max_model_len(config, stage, room) for stage in stages)


def _by_stage(config: VllmConfig) -> list[list[KVCacheSpec]]:
    """Of each pipeline stage, what its layers keep."""
    model, parallel = config.model_config, config.parallel_config
    stages, layers = parallel.pipeline_parallel_size, model.get_total_num_hidden_layers()
    types = _layer_types(config, layers)
    state = _state(config) if any(kind in _RECURRENT for kind in types) else None
    kinds = {kind: _spec(config, kind, state) for kind in set(types)}
    ends = (get_pp_indices(layers, stage, stages) for stage in range(stages))
    return [[kinds[kind] for kind in types[start:end]] for start, end in ends]


def _layer_types(config: VllmConfig, layers: int) -> Sequence[str]:
    model = config.model_config
    text = model.hf_text_config
    types = getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None)
    if types is not None and len(types) >= layers:
        return [str(kind) for kind in types[:layers]]
    window = config.cache_config.sliding_window  # vLLM's: that of all layers
    return [_WINDOWS if window is not None else "full_attention"] * layers


def _spec(config: VllmConfig, kind: str, state: MambaSpec | None) -> KVCacheSpec:
    if kind in _RECURRENT:
        assert state is not None
        return state
    model, cache = config.model_config, config.cache_config
    values: dict[str, Any] = {
        "block_size": _block(config, state),
        "num_kv_heads": model.get_num_kv_heads(config.parallel_config),
        "head_size": model.get_head_size(),
        "dtype": kv_cache_dtype_str_to_dtype(stored_as(cache.cache_dtype, model.hf_config), model),
    }
    window = None if model.disable_sliding_window else model.get_sliding_window()
    chunk = getattr(model.hf_text_config, "attention_chunk_size", None)
    if model.use_mla:
        return MLAAttentionSpec(**values)
    if kind == _WINDOWS and window is not None:
        return SlidingWindowSpec(**values, sliding_window=window)
    if kind == _CHUNKS and chunk is not None:
        return ChunkedLocalAttentionSpec(**values, attention_chunk_size=chunk)
    return FullAttentionSpec(**values)


def _block(config: VllmConfig, state: MambaSpec | None) -> int:
    """Tokens of a block; beside recurrent layers, as many as make a block as large as a state."""
    given = config.cache_config.block_size or _KERNEL_BLOCK
    if state is None:
        return given
    return max(given, state.block_size)


def _state(config: VllmConfig) -> MambaSpec:
    """What one recurrent layer keeps of a sequence, as large as a block of an attention layer: vLLM keeps
    both in pages of one size (``Platform.update_block_size_for_backend``)."""
    model, cache = config.model_config, config.cache_config
    kind: Any = ModelRegistry.resolve_model_cls(model.architectures, model)[0]
    state = MambaSpec(
        block_size=1,
        shapes=tuple(kind.get_mamba_state_shape_from_config(config)),
        dtypes=tuple(kind.get_mamba_state_dtype_from_config(config)),
        mamba_cache_mode=cache.mamba_cache_mode,
        num_speculative_blocks=config.num_speculative_tokens,
    )
    least = max(cache.block_size or 0, _KERNEL_BLOCK)
    token = _spec(config, "full_attention", state).page_size_bytes // (cache.block_size or _KERNEL_BLOCK)
    block = -(-state.page_size_bytes // (token * least)) * least
    return MambaSpec(
        block_size=block,
        shapes=state.shapes,
        dtypes=state.dtypes,
        page_size_padded=block * token,
        mamba_cache_mode=state.mamba_cache_mode,
        num_speculative_blocks=state.num_speculative_blocks,
    )
