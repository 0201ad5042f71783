"""The minimum that every item keeps under any policy: an engine cannot take an empty placeholder."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vllm_sgl.core import Kept, Seen
from vllm_sgl.prune.base import Policy
from vllm_sgl.prune.threads import one_thread


@dataclass(frozen=True)
class AtLeast:
    """Another policy's choice, with at least ``VisualItem.least`` visual tokens of every item.

    Adds an item's most important tokens, and drops equally many of the least important ones elsewhere, so
    that the total stays the same, unless there are more items than tokens to keep.
    """

    policy: Policy

    @one_thread()
    def select(self, seen: Sequence[Seen], retention: float) -> Kept:
        """As :meth:`vllm_sgl.prune.base.Policy.select`. Ties stay with the lower index."""
        kept = self.policy.select(seen, retention)
        lacking = [max(0, one.item.least - len(k)) for one, k in zip(seen, kept, strict=True)]
        if not any(lacking):
            return kept
        masks = [_mask(one, indices) for one, indices in zip(seen, kept, strict=True)]
        for one, mask, count in zip(seen, masks, lacking, strict=True):
            others = (~mask).nonzero().flatten()
            best = torch.sort(one.importance[others], descending=True, stable=True).indices
            mask[others[best[:count]]] = True
        for _ in range(sum(lacking)):
            _drop_one(seen, masks)
        return [mask.nonzero().flatten() for mask in masks]


def _mask(one: Seen, indices: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros(one.item.visual_tokens, dtype=torch.bool)
    mask[indices] = True
    return mask


def _drop_one(seen: Sequence[Seen], masks: list[torch.Tensor]) -> None:
    """Unmark the least important token that its item can spare, if there is one."""
    worst: tuple[float, int, int] | None = None
    for number, (one, mask) in enumerate(zip(seen, masks, strict=True)):
        if int(mask.sum()) <= one.item.least:
            continue
        indices = mask.nonzero().flatten().flip(0)  # of equals the last is the first to go
        index = int(indices[one.importance[indices].argmin()])
        value = float(one.importance[index])
        if worst is None or value <= worst[0]:
            worst = value, number, index
    if worst is not None:
        masks[worst[1]][worst[2]] = False
