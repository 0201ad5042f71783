"""Plain torch reference."""

import torch


def gather_visual(features: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Rows ``kept`` of ``features``, in that order.

    Args:
        features: [visual tokens, hidden], any dtype and device.
        kept: [k] int64, indices into the rows; on any device.

    Returns:
        [k, hidden], a copy of its own.
    """
    return features.index_select(0, kept.to(features.device))
