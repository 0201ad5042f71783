"""Plain torch reference."""

import torch


def gather_visual(
    features: torch.Tensor, kept: torch.Tensor, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Rows ``kept`` of ``features``, in that order.

        out[i] = features[kept[i]]    cast to ``dtype``

    Args:
        features: [visual tokens, hidden], any float dtype, strides and device.
        kept: [k] int64, numbers of rows, on any device. On the CPU, where vLLM keeps them, their range is
            checked; on a GPU it is not, because the host would have to wait for them.
        dtype: of the result; default: that of ``features``.

    Returns:
        [k, hidden] on the device of ``features``, a copy of its own.

    Raises:
        ValueError: arguments that do not fit each other.
    """
    check(features, kept)
    chosen = features.index_select(0, kept.to(features.device))
    return chosen if dtype is None else chosen.to(dtype)


def check(features: torch.Tensor, kept: torch.Tensor) -> None:
    """Shared with the kernel. Reads nothing that is on a GPU."""
    if features.dim() != 2 or kept.dim() != 1 or kept.dtype != torch.int64:
        raise ValueError(
            "expected features [visual tokens, hidden] and kept [k] int64; received "
            f"{tuple(features.shape)} and {tuple(kept.shape)} {kept.dtype}"
        )
    if kept.device.type == "cpu" and len(kept):
        low, high = (int(bound) for bound in kept.aminmax())
        if low < 0 or high >= len(features):
            raise ValueError(
                f"expected kept rows between 0 and {len(features) - 1}; received {low} to {high}: the "
                "features are not those of the image that the rows were chosen for"
            )
