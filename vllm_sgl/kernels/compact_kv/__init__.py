"""Compact KV: move the retained tokens' K and V from one set of paged slots into another.

Nothing calls it yet. It waits for pruning in a middle layer, where visual tokens whose K and V are already
in the cache leave a request.
"""

from .._triton import by_device
from .naive import compact_kv as _naive

__all__ = ["compact_kv"]

compact_kv = by_device(_naive, __name__)
