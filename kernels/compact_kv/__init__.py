"""Compact KV: move the retained tokens' K and V from one set of paged slots into another."""

from functools import wraps

from .._triton import require_triton
from .naive import compact_kv as _naive

__all__ = ["compact_kv"]


@wraps(_naive)
def compact_kv(kv_cache, *args, **kwargs) -> None:
    if kv_cache.device.type == "cpu":
        return _naive(kv_cache, *args, **kwargs)
    require_triton("compact_kv", kv_cache.device)
    from .kernel import compact_kv as kernel

    return kernel(kv_cache, *args, **kwargs)
