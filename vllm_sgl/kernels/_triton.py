"""Choosing between an operation's naive reference and its kernel.

Triton is asked for only where a tensor is on a GPU, so that CPU users need not have it.
"""

from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from importlib.util import find_spec
from inspect import signature

import torch


def by_device(naive: Callable, package: str) -> Callable:
    """``naive`` where its first tensor is on the CPU, else the function of that name in ``package.kernel``.

    Raises:
        ImportError: when called with a tensor on a GPU, where Triton is missing.
    """
    first = next(iter(signature(naive).parameters))

    @wraps(naive)
    def operation(*args, **kwargs):
        device = (args[0] if args else kwargs[first]).device
        if device.type == "cpu":
            return naive(*args, **kwargs)
        require_triton(naive.__name__, device)
        kernel = getattr(import_module(f"{package}.kernel"), naive.__name__)
        return kernel(*args, **kwargs)

    return operation


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
