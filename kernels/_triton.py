"""Whether Triton is there; asked only where a tensor is on a GPU, so that CPU users need not have it."""

from functools import cache
from importlib.util import find_spec

import torch


def require_triton(operation: str, device: torch.device) -> None:
    """Raise ImportError, with what to do, where a kernel cannot be compiled."""
    if not _has_triton():
        raise ImportError(
            f"{operation} on {device} is a Triton kernel, and triton is not installed: run "
            "`pip install triton` in the version that torch was built for, or move the tensors to the CPU"
        )


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
