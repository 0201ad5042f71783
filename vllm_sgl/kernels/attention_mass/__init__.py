"""Attention mass: what the query rows of a batch give to chosen keys of a paged K cache."""

import torch

from .._triton import by_device, require_triton
from .naive import attention_mass as _naive

__all__ = ["attention_mass", "warm_up"]

attention_mass = by_device(_naive, __name__)


def warm_up(key_cache: torch.Tensor, heads: int, lanes: int) -> None:
    """Compile every variant of the kernels that batches of one layer can need, and run each once.

    Call it before the first request: Triton would compile in the middle of serving, for seconds, whenever
    the load first changes. Layers with equal shapes, strides and dtype share their variants. Does nothing
    on a CPU.

    Args:
        key_cache: [blocks, kv_heads, block_size, head_dim], as :func:`attention_mass` will be given it; read,
            never written, and it may hold anything.
        heads: query heads of the layer.
        lanes: of the ``mass`` that :func:`attention_mass` will be given.

    Raises:
        ImportError: on a GPU, where Triton is missing.
    """
    if key_cache.device.type == "cpu":
        return
    require_triton("attention_mass", key_cache.device)
    from .every_variant import run_every_variant

    run_every_variant(key_cache, heads, lanes)
