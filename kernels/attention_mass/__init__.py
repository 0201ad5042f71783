"""Attention mass: what the query rows of a batch give to chosen keys of a paged K cache."""

from functools import wraps

from .._triton import require_triton
from .naive import attention_mass as _naive

__all__ = ["attention_mass"]


@wraps(_naive)
def attention_mass(query, *args, **kwargs) -> None:
    if query.device.type == "cpu":
        return _naive(query, *args, **kwargs)
    require_triton("attention_mass", query.device)
    from .kernel import attention_mass as kernel

    return kernel(query, *args, **kwargs)
