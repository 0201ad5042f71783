"""What the seconds of an engine's passes depend on: the machine, versions, and an engine's configuration."""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
import vllm
from vllm import envs
from vllm.config import LoRAConfig, SpeculativeConfig, VllmConfig
from vllm.platforms import current_platform

from vllm_sgl.host.start.device import weight_bytes

#: Beginnings of the names of variables that change how fast kernels run.
_VARIABLES = (
    "OMP_",
    "KMP_",
    "MKL_",
    "LD_PRELOAD",
    "MALLOC_",
    "CUDA_VISIBLE",
    "VLLM_CPU_",
    "VLLM_USE_",
    "TORCH",
)
#: How much of the cores' time a container has.
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_CPU_INFO = Path("/proc/cpuinfo")


def cache_folder() -> Path:
    """Where vLLM keeps what it has worked out once for this user."""
    return Path(envs.VLLM_CACHE_ROOT)


def machine() -> dict[str, Any]:
    """Processors, how many of them this process may use, and variables that say how."""
    names = {line for line in _lines(_CPU_INFO) if line.startswith("model name")}
    return {
        "kind": platform.machine(),
        "cpu": sorted(names),
        "cores": len(os.sched_getaffinity(0)),
        "quota": _lines(_QUOTA),
        "device": None if current_platform.is_cpu() else current_platform.get_device_name(),
        "variables": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)
        },
    }


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "vllm": vllm.__version__,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }


def engine(config: VllmConfig) -> dict[str, Any]:
    """An engine's model by its shape, wherever its files lie, and how it runs."""
    model, scheduler, cache = config.model_config, config.scheduler_config, config.cache_config
    shape = json.loads(model.hf_config.to_json_string())
    shape.pop("_name_or_path", None)
    multimodal = model.multimodal_config
    return {
        "model": shape,
        "weights": weight_bytes(config),
        "dtype": str(model.dtype),
        "quantization": str(model.quantization),
        "context": model.max_model_len,
        "eager": model.enforce_eager,
        "processor": _plain(multimodal.mm_processor_kwargs),
        "limits": str(multimodal.limit_per_prompt),
        "parallel": [
            config.parallel_config.tensor_parallel_size,
            config.parallel_config.pipeline_parallel_size,
        ],
        "batch": [scheduler.max_num_seqs, scheduler.max_num_batched_tokens, scheduler.enable_chunked_prefill],
        "cache": [cache.block_size, str(cache.cache_dtype), cache.enable_prefix_caching],
        "graphs": [str(config.compilation_config.mode), str(config.compilation_config.cudagraph_mode)],
        "attention": str(config.attention_config.backend),
        "drafts": _drafts(config.speculative_config),
        "adapters": _adapters(config.lora_config),
    }


def _drafts(config: SpeculativeConfig | None) -> list[Any] | None:
    """How the engine drafts tokens: method, model, tokens at a time."""
    return None if config is None else [config.method, config.model, config.num_speculative_tokens]


def _adapters(config: LoRAConfig | None) -> list[Any] | None:
    """How many adapters the engine takes in a batch and of which rank; None where it takes none."""
    if config is None:
        return None
    return [config.max_loras, config.max_lora_rank, config.fully_sharded_loras, str(config.lora_dtype)]


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # not on this system
        return []
