"""Reads what the memory plan needs, and gives the result to vLLM."""

import logging
import os

from vllm.config import VllmConfig

from vllm_sgl.config import SGLConfig
from vllm_sgl.engine.memory import Engine, Plan, plan, size, usable
from vllm_sgl.host.start import device as host
from vllm_sgl.host.start.encoder import feature_cache_bytes
from vllm_sgl.host.start.kv_need import sequence_bytes

logger = logging.getLogger("vllm.vllm_sgl.memory")

_SMALL_KV = "kv_cache_memory_bytes"
#: vLLM's older way to fix a CPU engine's KV cache, in GiB. Both engines read it; it is the large one's.
_CPU_KV = "VLLM_CPU_KVCACHE_SPACE"


def share_memory(large: VllmConfig, small: VllmConfig, config: SGLConfig) -> Plan:
    """Split the device's memory, write the result where vLLM reads it, and say so.

    Raises:
        ValueError: where the pair does not fit the device.
    """
    device, utilization = host.device(), large.cache_config.gpu_memory_utilization
    small_needs, large_needs = needs_of(large, small, config, device)
    found = plan(device, utilization, small_needs, large_needs, config.small_memory)
    if found.warning:
        logger.warning("SGL memory: %s", found.warning)
    for name, needs in (("small", small_needs), ("large", large_needs)):
        if not needs.weights:
            logger.warning(
                "SGL memory: how large the %s model's weights are could not be read from its checkpoint, so "
                "nothing is set aside for them; set --sgl-small-memory if an engine then runs out of memory",
                name,
            )
    if device.kind == "cpu":
        small.cache_config.kv_cache_memory_bytes = found.small_kv
        large.cache_config.kv_cache_memory_bytes = found.large_kv
    else:
        small.cache_config.gpu_memory_utilization = found.small_share
        large.cache_config.gpu_memory_utilization = found.large_share
    logger.info(
        "SGL memory: %s of %s on %s for both engines; small engine: %s, %s in all; large engine: %s, %s in "
        "all. --sgl-small-memory and --kv-cache-memory-bytes set other sizes",
        size(usable(device, utilization)), size(device.total), device.name,
        small_needs.describe(found.small_kv), size(found.small_total),
        large_needs.describe(found.large_kv), size(found.large_total),
    )  # fmt: skip
    return found


def needs_of(
    large: VllmConfig, small: VllmConfig, config: SGLConfig, device: host.Device
) -> tuple[Engine, Engine]:
    """What the small and the large engine need."""
    small_needs = _needs(small, config.small_args.get(_SMALL_KV), f"--sgl-small-args {_SMALL_KV}")
    set_by = _CPU_KV if device.kind == "cpu" and os.environ.get(_CPU_KV) else "--kv-cache-memory-bytes"
    return small_needs, _needs(large, large.cache_config.kv_cache_memory_bytes, set_by)


def _needs(vllm_config: VllmConfig, kv: int | None, kv_from: str) -> Engine:
    return Engine(
        weights=host.weight_bytes(vllm_config),
        sequence=sequence_bytes(vllm_config),
        tokens=vllm_config.model_config.max_model_len,
        sequences=vllm_config.scheduler_config.max_num_seqs,
        features=feature_cache_bytes(vllm_config),
        kv=kv,
        kv_from=kv_from,
    )
