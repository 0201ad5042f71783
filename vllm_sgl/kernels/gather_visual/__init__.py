"""Gather visual: the kept rows of one image's visual features."""

import torch

from .._triton import by_device
from .naive import gather_visual as _naive

__all__ = ["gather_visual", "warm_up"]

gather_visual = by_device(_naive, __name__)


def warm_up(hidden: int, dtype: torch.dtype, device: torch.device) -> None:
    """Compile the kernel now and not in the middle of serving. Does nothing on a CPU.

    There is one variant for rows of ``hidden`` elements of ``dtype`` that are kept as they are.
    """
    if device.type != "cpu":
        first = torch.zeros(1, dtype=torch.int64, device="cpu")  # models are built under other defaults
        gather_visual(torch.zeros(1, hidden, dtype=dtype, device=device), first)
