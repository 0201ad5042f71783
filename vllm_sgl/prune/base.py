"""The protocol of a policy: which visual tokens stay."""

import math
from collections.abc import Sequence
from typing import Protocol

from vllm_sgl.core import Kept, Seen


class Policy(Protocol):
    """A pure function of what the guide saw: the same request keeps the same tokens."""

    def select(self, seen: Sequence[Seen], retention: float) -> Kept:
        """Kept indices per item.

        Args:
            seen: the request's images and videos, in prompt order.
            retention: share kept of all visual tokens of the request, in (0, 1].

        Returns:
            one ascending int64 tensor per item, relative to its own visual tokens, possibly empty; together
            at most ``kept_count(retention, all visual tokens)`` indices, and at least one. That no item has
            fewer than ``item.least`` is seen to for every policy (:mod:`vllm_sgl.prune.minimum`).
        """
        ...


def kept_count(retention: float, visual_tokens: int) -> int:
    """max(1, floor(retention * visual_tokens)), the product in floating point."""
    return max(1, math.floor(retention * visual_tokens))
