"""Keep the most important visual tokens of a request, ranked jointly over its images and videos."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vllm_sgl.core import Kept, Seen
from vllm_sgl.prune.base import kept_count


@dataclass(frozen=True)
class TopImportance:
    """Top-k by importance (arXiv 2412.03324, section 3.2); ties go to the lower index, so a mask is a pure
    function of the scores."""

    def select(self, seen: Sequence[Seen], retention: float) -> Kept:
        """As :meth:`vllm_sgl.prune.base.Policy.select`; exactly ``kept_count`` indices."""
        scores = torch.cat([one.importance for one in seen])
        count = kept_count(retention, len(scores))
        order = torch.sort(scores, descending=True, stable=True).indices
        kept = torch.zeros(len(scores), dtype=torch.bool)
        kept[order[:count]] = True
        return [mask.nonzero().flatten() for mask in kept.split([len(one.importance) for one in seen])]
