"""Gather visual: the kept rows of an image's visual features, cast and put where they belong."""

from functools import wraps

from .._triton import require_triton
from .naive import gather_visual as _naive

__all__ = ["gather_visual"]


@wraps(_naive)
def gather_visual(features, *args, **kwargs):
    if features.device.type == "cpu":
        return _naive(features, *args, **kwargs)
    require_triton("gather_visual", features.device)
    from .kernel import gather_visual as kernel

    return kernel(features, *args, **kwargs)
