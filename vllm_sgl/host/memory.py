"""Sharing one device's memory between the two engines."""

import logging
from dataclasses import dataclass
from math import prod
from typing import Any

import psutil
from vllm.config import VllmConfig
from vllm.platforms import current_platform
from vllm.transformers_utils.config import get_safetensors_params_metadata

from vllm_sgl.host.encoder import feature_cache_bytes

logger = logging.getLogger("vllm.vllm_sgl.memory")

GIB = 1 << 30
#: What an engine needs beside weights and KV cache: activations, workspaces, its runtime.
RESERVE = {"cpu": GIB, "cuda": 4 * GIB}
#: Sequences of full length that the small engine's KV cache holds by default, and its bound.
SMALL_SEQUENCES = 16
SMALL_KV_MOST = {"cpu": GIB, "cuda": 4 * GIB}
#: Fraction over what the checkpoint says: alignment, buffers, fragmentation.
_SLACK = 1.05


@dataclass(frozen=True)
class Plan:
    """Bytes for each engine. On a CPU the KV sizes are handed to vLLM, on a GPU the shares."""

    small_total: int
    small_kv: int
    large_kv: int | None
    small_share: float
    large_share: float


def plan(large: VllmConfig, small: VllmConfig, asked: str | float | int, fixed_kv: int | None = None) -> Plan:
    """Split the device's memory.

    Args:
        asked: "auto", a share of the device's memory in (0, 1), or bytes, for the small engine.
        fixed_kv: KV cache bytes of the small engine where the user gave them; ``asked`` is not used then.

    Raises:
        ValueError: where one of the two engines cannot hold its weights and one full sequence.
    """
    on_cpu = current_platform.is_cpu()
    kind = "cpu" if on_cpu else "cuda"
    device_total = psutil.virtual_memory().total if on_cpu else current_platform.get_device_total_memory()
    used = device_total - psutil.virtual_memory().available if on_cpu else 0
    limit = int(device_total * large.cache_config.gpu_memory_utilization) - used
    small_weights, large_weights = weight_bytes(small), weight_bytes(large)
    small_features, large_features = feature_cache_bytes(small), feature_cache_bytes(large)
    fixed = small_weights + small_features + RESERVE[kind]
    one = sequence_bytes(small)
    if fixed_kv is not None:
        small_kv = fixed_kv
    elif asked == "auto":
        small_kv = max(one, min(SMALL_SEQUENCES * one, SMALL_KV_MOST[kind]))
    else:
        share = int(asked * device_total) if isinstance(asked, float) else int(asked)
        small_kv = share - fixed
    small_total = fixed + small_kv
    # On a CPU the user may have fixed the large engine's KV cache; it is his to size then.
    set_by_user = large.cache_config.kv_cache_memory_bytes
    needed = large_weights + large_features + RESERVE[kind]
    large_kv = set_by_user or limit - small_total - needed
    if small_kv < one or large_kv < sequence_bytes(large) or small_total + needed + large_kv > max(limit, 1):
        raise ValueError(
            f"not enough memory for both engines on one device: {_gib(limit)} usable of "
            f"{_gib(device_total)}; small: weights {_gib(small_weights)}, KV cache {_gib(small_kv)} (one "
            f"sequence of {small.model_config.max_model_len} tokens needs {_gib(one)}); large: weights "
            f"{_gib(large_weights)}, KV cache {_gib(large_kv)} (one sequence of "
            f"{large.model_config.max_model_len} tokens needs {_gib(sequence_bytes(large))}); plus "
            f"{_gib(RESERVE[kind])} working memory each, and feature caches of {_gib(small_features)} and "
            f"{_gib(large_features)}. Change "
            "--sgl-small-memory, --gpu-memory-utilization, --kv-cache-memory-bytes or --max-model-len"
        )
    large_util = large.cache_config.gpu_memory_utilization
    return Plan(
        small_total=small_total,
        small_kv=small_kv,
        large_kv=large_kv if on_cpu else None,
        # Without the feature cache: vLLM would give its room to the KV cache.
        small_share=(small_total - small_features) / device_total,
        large_share=large_util - (small_total + large_features) / device_total,
    )


def apply(plan: Plan, large: VllmConfig, small: VllmConfig) -> None:
    """Write a plan into both engines' configs, and say so."""
    if plan.large_kv is not None:
        small.cache_config.kv_cache_memory_bytes = plan.small_kv
        large.cache_config.kv_cache_memory_bytes = plan.large_kv
        logger.info(
            "SGL memory: small engine %s KV cache (%s with weights and working memory), large engine %s "
            "KV cache", _gib(plan.small_kv), _gib(plan.small_total), _gib(plan.large_kv),
        )  # fmt: skip
    else:
        small.cache_config.gpu_memory_utilization = plan.small_share
        large.cache_config.gpu_memory_utilization = plan.large_share
        logger.info(
            "SGL memory: small engine %.3f of the device (%s), large engine %.3f",
            plan.small_share, _gib(plan.small_total), plan.large_share,
        )  # fmt: skip


def sequence_bytes(config: VllmConfig) -> int:
    """KV cache bytes of one sequence of full length, on one device."""
    model, parallel = config.model_config, config.parallel_config
    per_token = 2 * model.get_num_kv_heads(parallel) * model.get_head_size() * model.dtype.itemsize
    layers = model.get_num_layers(parallel)
    block = config.cache_config.block_size or 1
    tokens = -(-model.max_model_len // block) * block
    return per_token * layers * tokens


def weight_bytes(config: VllmConfig) -> int:
    """Bytes of the weights on one device, from the checkpoint's headers.

    Floating-point weights count at the engine's dtype. 0 where the checkpoint has no safetensors
    headers to read (dummy weights): the check for enough memory is blind then.
    """
    model = config.model_config
    metadata = get_safetensors_params_metadata(model.model, revision=model.revision)
    size = 0
    for info in (entry for entry in metadata.values() if "shape" in entry):
        count = prod(info["shape"])
        wide = info["dtype"] in ("F32", "F16", "BF16", "F64")
        size += count * (model.dtype.itemsize if wide else 1)
    return int(size * _SLACK) // config.parallel_config.tensor_parallel_size


def _gib(size: Any) -> str:
    return f"{size / GIB:.2f} GiB"
