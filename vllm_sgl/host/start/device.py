"""What vLLM's workers will find on the device, its memory, and what a model needs there. Starts nothing.

Numbers are bytes on one device. On a CPU the device is what vLLM's CPU worker takes for it: one NUMA node,
clamped to the limit of the cgroup (``vllm.utils.cpu_resource_utils``), not the machine.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import psutil
from vllm.config import ModelConfig, VllmConfig
from vllm.platforms import current_platform
from vllm.transformers_utils.config import get_safetensors_params_metadata
from vllm.transformers_utils.repo_utils import get_hf_file_to_dict
from vllm.utils import cpu_resource_utils as cpu
from vllm.utils.import_utils import import_pynvml

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
#: Values of ``--quantization`` by which vLLM makes bytes of linear layers' weights while it loads them, where
#: the checkpoint does not have them quantised.
_TO_BYTES = (
    "fp8", "fp8_per_tensor", "fp8_per_block", "fp8_per_channel", "int8_per_channel_weight_only", "mxfp8",
)  # fmt: skip
#: Matrices that are no linear layer's: such as ``embed_tokens``, ``tok_embeddings``, ``lm_head``.
_NOT_LINEAR = ("embed", "lm_head", "language_model.output.")
#: In the names of their weights.
_EXPERTS = ".experts."
#: Says how large all of a checkpoint is, also where its parts are not there (yet).
_INDEX = "model.safetensors.index.json"
#: Checkpoints without safetensors headers: the size of their files says enough.
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.gguf")
#: Which cores vLLM's CPU workers are bound to; worker by worker, separated by "|".
_BIND = "VLLM_CPU_OMP_THREADS_BIND"


@dataclass(frozen=True)
class Device:
    """kind: "cpu" or "gpu". name: for messages. total, free: bytes; free means unused now."""

    kind: str
    name: str
    total: int
    free: int


def devices_of(config: VllmConfig) -> frozenset[int]:
    """Physical ids of the GPUs that an engine's workers take: those of ``device_ids``, else the first ones
    that are visible. Empty on what is no CUDA GPU."""
    if not current_platform.is_cuda():
        return frozenset()
    parallel = config.parallel_config
    if parallel.assigned_physical_gpu_ids is not None:
        return frozenset(parallel.assigned_physical_gpu_ids)
    return frozenset(map(current_platform.device_id_to_physical_device_id, range(parallel.world_size)))


def device(physical: int | None = None) -> Device:
    """The first worker's device.

    Args:
        physical: id of a GPU; None for the first that is visible.
    """
    if current_platform.is_cpu():
        node = _memory_node()
        memory = cpu.get_memory_node_info(node)
        limited = memory.total_memory == cpu.get_cgroup_memory_limit()
        name = "this container (its cgroup's limit)" if limited else f"NUMA node {node}"
        return Device("cpu", name, memory.total_memory, memory.available_memory)
    name = f"each {current_platform.device_type} device"
    if physical is not None and (found := _nvml_memory(physical)) is not None:
        return Device("gpu", name, *found)
    total = current_platform.get_device_total_memory()
    if not current_platform.is_cuda():
        return Device("gpu", name, total, total)
    found = _nvml_memory(current_platform.device_id_to_physical_device_id(0))
    return Device("gpu", name, total, total if found is None else min(total, found[1]))


def weight_bytes(config: VllmConfig) -> int:
    """The weights on each device, from the checkpoint's headers, index or file sizes; 0 where none of them
    can be read. Pipeline stages are counted as equal: what their ends have more is embeddings."""
    model = config.model_config
    metadata = get_safetensors_params_metadata(model.model, revision=model.revision)
    tensors = {name: entry for name, entry in metadata.items() if "shape" in entry}
    size = sum(prod(tensor["shape"]) * _element(name, tensor, model) for name, tensor in tensors.items())
    if not tensors:
        index = get_hf_file_to_dict(_INDEX, model.model, model.revision) or {}
        size = index.get("metadata", {}).get("total_size", 0)
    if not size and Path(model.model).is_dir():
        files = (file for pattern in _OTHER_WEIGHTS for file in Path(model.model).glob(pattern))
        size = sum(file.stat().st_size for file in files)
    parallel = config.parallel_config
    return int(size) // (parallel.tensor_parallel_size * parallel.pipeline_parallel_size)


def host_memory() -> int:
    """Bytes that this machine has free, or this container below its cgroup's limit."""
    free, limit = int(psutil.virtual_memory().available), cpu.get_cgroup_memory_limit()
    return free if limit is None else min(free, limit - (cpu.get_cgroup_memory_usage() or 0))


def pinned_bytes(config: VllmConfig) -> int:
    """Pinned host memory that runner V2 takes for position ids of several rows, by
    ``vllm.v1.worker.gpu.mm.rope.RopeState``; 0 where it holds none."""
    model = config.model_config
    if current_platform.is_cpu() or not (model.uses_mrope and config.use_v2_model_runner):
        return 0
    return model.mrope_num_dims * config.scheduler_config.max_num_seqs * model.max_model_len * 4


def _element(name: str, tensor: Mapping[str, Any], model: ModelConfig) -> int:
    """Bytes that an element of a checkpoint's tensor takes once it is loaded."""
    stored = tensor["dtype"]
    if stored not in _FLOATS:
        return _STORED.get(stored, 1)
    quantised = getattr(model.hf_config, "quantization_config", None)
    # All experts of a layer may be one tensor of three dimensions.
    matrix = len(tensor["shape"]) == 2 or (len(tensor["shape"]) == 3 and _EXPERTS in name)
    linear = matrix and not any(part in name for part in _NOT_LINEAR)
    return 1 if linear and not quantised and model.quantization in _TO_BYTES else model.dtype.itemsize


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


def _nvml_memory(physical: int) -> tuple[int, int] | None:
    """Bytes in all and free of a GPU, read without a context on it, which keeps vLLM from forking; None where
    that fails."""
    nvml = import_pynvml()
    try:
        nvml.nvmlInit()
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(physical))
            return int(memory.total), int(memory.free)
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError:
        return None
