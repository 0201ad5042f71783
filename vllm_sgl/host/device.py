"""What vLLM's workers will find on the device, its memory, and what a model needs there. Starts nothing.

Numbers are bytes on one device. On a CPU the device is what vLLM's CPU worker takes for it: one NUMA node,
clamped to the limit of the cgroup (``vllm.utils.cpu_resource_utils``), not the machine.
"""

import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from vllm.config import VllmConfig
from vllm.platforms import current_platform
from vllm.transformers_utils.config import get_safetensors_params_metadata
from vllm.utils import cpu_resource_utils as cpu
from vllm.utils.import_utils import import_pynvml
from vllm.utils.torch_utils import kv_cache_dtype_str_to_dtype
from vllm.v1.kv_cache_interface import FullAttentionSpec

#: Bytes of an element as safetensors stores it. Packed integers (AWQ and GPTQ keep eight 4-bit weights in an
#: I32) count as what they are.
_STORED = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U16": 2,
}
#: Stored so, weights are loaded in the engine's own dtype.
_FLOATS = ("F64", "F32", "F16", "BF16")
#: Checkpoints without safetensors headers: the size of their files says enough.
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.gguf")
#: Which cores vLLM's CPU workers are bound to; worker by worker, separated by "|".
_BIND = "VLLM_CPU_OMP_THREADS_BIND"


@dataclass(frozen=True)
class Device:
    """kind: "cpu" or "gpu". name: for messages. total, free: bytes, free meaning in nobody's use now."""

    kind: str
    name: str
    total: int
    free: int


def device() -> Device:
    """The first worker's device."""
    if current_platform.is_cpu():
        node = _memory_node()
        memory = cpu.get_memory_node_info(node)
        limited = memory.total_memory == cpu.get_cgroup_memory_limit()
        name = "this container (its cgroup's limit)" if limited else f"NUMA node {node}"
        return Device("cpu", name, memory.total_memory, memory.available_memory)
    total = current_platform.get_device_total_memory()
    return Device(
        "gpu", f"each {current_platform.device_type} device", total, min(total, _free_on_gpu(total))
    )


def sequence_bytes(config: VllmConfig) -> int:
    """KV cache of one sequence of full length, in whole blocks, by vLLM's own arithmetic. Layers that look
    back less far, and caches packed tighter than their dtype, need less."""
    model, parallel, cache = config.model_config, config.parallel_config, config.cache_config
    layer = FullAttentionSpec(
        block_size=cache.block_size or 16,
        num_kv_heads=model.get_num_kv_heads(parallel),
        head_size=model.get_head_size(),
        dtype=kv_cache_dtype_str_to_dtype(cache.cache_dtype, model),
    )
    return layer.max_memory_usage_bytes(config) * model.get_num_layers(parallel)


def weight_bytes(config: VllmConfig) -> int:
    """The weights, from the checkpoint's headers or file sizes; 0 where nothing can be read of them."""
    model = config.model_config
    metadata = get_safetensors_params_metadata(model.model, revision=model.revision)
    tensors = [entry for entry in metadata.values() if "shape" in entry]
    size = sum(prod(tensor["shape"]) * _element(tensor["dtype"], model) for tensor in tensors)
    if not tensors and Path(model.model).is_dir():
        files = (file for pattern in _OTHER_WEIGHTS for file in Path(model.model).glob(pattern))
        size = sum(file.stat().st_size for file in files)
    return size // config.parallel_config.tensor_parallel_size


def pinned_bytes(config: VllmConfig) -> int:
    """Pinned host memory that runner V2 takes for position ids of several rows, by
    ``vllm.v1.worker.gpu.mm.rope.RopeState``; 0 where it holds none."""
    model = config.model_config
    if current_platform.is_cpu() or not (model.uses_mrope and config.use_v2_model_runner):
        return 0
    return model.mrope_num_dims * config.scheduler_config.max_num_seqs * model.max_model_len * 4


def _element(stored: str, model: Any) -> int:
    return model.dtype.itemsize if stored in _FLOATS else _STORED.get(stored, 1)


def _memory_node() -> int:
    """The NUMA node whose memory vLLM's CPU worker takes, as ``CPUWorker`` chooses it."""
    cores = cpu.get_allowed_cpu_list()
    bound = os.environ.get(_BIND, "").split("|")[0]
    if bound[:1].isdigit():
        own = set(cpu.parse_id_list(bound))
        cores = [core for core in cores if core.id in own] or cores
    visible = cpu.get_visible_memory_node()
    node = cores[0].numa_node
    return node if node in visible else visible[0]


def _free_on_gpu(total: int) -> int:
    """Read without a context on the device, which keeps vLLM from forking; ``total`` where that fails."""
    if not current_platform.is_cuda():
        return total
    nvml = import_pynvml()
    try:
        nvml.nvmlInit()
        try:
            physical = current_platform.device_id_to_physical_device_id(0)
            return int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(physical)).free)
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError:
        return total
