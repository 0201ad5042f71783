"""Keeps the most important visual tokens of a request, ranked jointly over its images and videos."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vllm_sgl.core import Kept, Seen
from vllm_sgl.prune.base import kept_count


@dataclass(frozen=True)
class TopImportance:
    """Top-k by importance (arXiv 2412.03324, section 3.2)."""

    def select(self, seen: Sequence[Seen], retention: float) -> Kept:
        """As :meth:`vllm_sgl.prune.base.Policy.select`; exactly ``kept_count`` indices."""
        order = ranked(seen)
        return per_item(order[: kept_count(retention, len(order))], seen)


def ranked(seen: Sequence[Seen]) -> torch.Tensor:
    """All visual tokens of a request, the most important first: int64 [visual tokens], counted on from item
    to item. Ties go to the lower index, so a mask is a pure function of the scores."""
    scores = torch.cat([one.importance for one in seen])
    return torch.sort(scores, descending=True, stable=True).indices


def per_item(chosen: torch.Tensor, seen: Sequence[Seen]) -> Kept:
    """Some of a request's visual tokens, counted as in :func:`ranked`, as kept indices of each item."""
    counts = [len(one.importance) for one in seen]
    kept = torch.zeros(sum(counts), dtype=torch.bool)
    kept[chosen] = True
    return [mask.nonzero().flatten() for mask in kept.split(counts)]
