"""Gather visual: the kept rows of an image's visual features, cast and put where they belong."""

from .._triton import by_device
from .naive import gather_visual as _naive

__all__ = ["gather_visual"]

gather_visual = by_device(_naive, __name__)
