"""Attention mass: what the query rows of a batch give to chosen keys of a paged K cache."""

from .naive import attention_mass

__all__ = ["attention_mass"]
