"""Gather visual: the kept rows of an image's visual features."""

from .naive import gather_visual

__all__ = ["gather_visual"]
