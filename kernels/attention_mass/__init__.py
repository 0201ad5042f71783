"""Attention mass: what the query rows of a batch give to chosen keys of a paged K cache."""

from .._triton import by_device
from .naive import attention_mass as _naive

__all__ = ["attention_mass"]

attention_mass = by_device(_naive, __name__)
