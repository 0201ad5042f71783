"""What an engine's KV cache holds: "auto" is the model's dtype, unless its checkpoint asks for less."""

from collections.abc import Mapping
from typing import Any

from vllm.utils.torch_utils import get_kv_cache_quant_algo_string

#: vLLM's names of the dtypes in which a cache stores K as it is. It has no such name for float32.
PLAIN = ("float16", "bfloat16")


def stored_as(cache_dtype: str, config: Any) -> str:
    """The value of ``kv_cache_dtype`` that vLLM comes to, "auto" where it is the model's own dtype.

    It reads checkpoints in two places: ModelOpt's when an engine is configured, compressed-tensors' only in
    the attention layers (``vllm.model_executor.layers.attention.Attention``).

    Args:
        cache_dtype: as the engine was told, or as vLLM has resolved it so far.
        config: the model's, with its ``quantization_config`` if it has one.
    """
    quantization = getattr(config, "quantization_config", None)
    if cache_dtype != "auto" or not isinstance(quantization, Mapping):
        return cache_dtype
    method = quantization.get("quant_method", "")
    if method == "compressed-tensors":
        return "fp8" if quantization.get("kv_cache_scheme") is not None else "auto"
    return get_kv_cache_quant_algo_string(dict(quantization)) or "auto"


def plain(dtype: Any) -> str | None:
    """The ``kv_cache_dtype`` that keeps K as a model of this dtype computes it, whatever its checkpoint asks
    for; None where vLLM has none.

    Args:
        dtype: a ``torch.dtype``, or vLLM's name of one.
    """
    name = str(dtype).removeprefix("torch.")
    name = "float16" if name == "half" else name
    return name if name in PLAIN else None
