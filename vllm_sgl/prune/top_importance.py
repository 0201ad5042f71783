"""Keep the most important visual tokens of a request, ranked jointly over its images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vllm_sgl.decision import kept_count


@dataclass(frozen=True)
class TopImportance:
    """Top-k by importance; ties go to the lower index, so a mask is a pure function of the scores."""

    def select(self, importance: Sequence[torch.Tensor], retention: float) -> list[torch.Tensor]:
        """Kept indices per image.

        Args:
            importance: one float32 tensor [visual tokens] per image.
            retention: share kept of all visual tokens of the request, in (0, 1].

        Returns:
            one ascending int64 tensor per image, possibly empty; together
            ``kept_count(retention, all visual tokens)`` indices.
        """
        scores = torch.cat(list(importance))
        count = kept_count(retention, len(scores))
        order = torch.sort(scores, descending=True, stable=True).indices
        kept = torch.zeros(len(scores), dtype=torch.bool)
        kept[order[:count]] = True
        return [mask.nonzero().flatten() for mask in kept.split([len(x) for x in importance])]
