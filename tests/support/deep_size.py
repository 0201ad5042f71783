"""How much memory an object keeps alive."""

import gc
import sys
from types import FunctionType, ModuleType
from typing import Any

import torch


def deep_size(*roots: Any) -> int:
    """Bytes of everything that can be reached, each counted once: a tensor with its whole storage, which
    others may share. Code is not counted."""
    seen: set[int] = set()
    total, waiting = 0, list(roots)
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, type | ModuleType | FunctionType):
            continue
        seen.add(id(found))
        total += sys.getsizeof(found)
        if not isinstance(found, torch.Tensor):
            waiting.extend(gc.get_referents(found))
            continue
        storage = found.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total += storage.nbytes()
    return total
