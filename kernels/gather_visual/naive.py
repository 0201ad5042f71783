"""Plain torch reference."""

import torch


def gather_visual(
    features: torch.Tensor,
    kept: torch.Tensor,
    out: torch.Tensor | None = None,
    rows: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Rows ``kept`` of ``features``, in that order.

        out[rows[i]] = features[kept[i]]    cast to the dtype of ``out``

    Args:
        features: [visual tokens, hidden], any dtype and device.
        kept: [k] int64, indices into the rows; on any device.
        out: [k or more, hidden], where to write, for example ``inputs_embeds``; any dtype and row stride,
            no memory in common with ``features``. Default: a new tensor [k, hidden].
        rows: [k] int64, different rows of ``out``; on any device. Default: 0 .. k - 1.
        dtype: of the new tensor; default: that of ``features``. Not together with ``out``.

    Returns:
        ``out``; a copy of its own where none was given.

    Raises:
        ValueError: arguments that do not fit each other.
    """
    check(features, kept, out, rows, dtype)
    chosen = features.index_select(0, kept.to(features.device))
    if out is None:
        return chosen if dtype is None else chosen.to(dtype)
    if rows is None:
        out[: len(kept)] = chosen
    else:
        out[rows.to(out.device)] = chosen.to(out.dtype)
    return out


def check(features, kept, out, rows, dtype) -> None:
    """Shared with the kernel."""
    if out is None:
        if rows is not None:
            raise ValueError("rows says where to write in out; received rows without out")
        return
    if dtype is not None:
        raise ValueError(f"out decides the dtype; received both out ({out.dtype}) and dtype={dtype}")
    if out.dim() != 2 or out.shape[1] != features.shape[1] or out.device != features.device:
        raise ValueError(
            f"expected out [rows, {features.shape[1]}] on {features.device}; received {tuple(out.shape)} "
            f"on {out.device}"
        )
    if rows is None and len(out) < len(kept):
        raise ValueError(f"out has {len(out)} rows, too few for {len(kept)} kept tokens")
    if rows is not None and rows.shape != kept.shape:
        raise ValueError(
            f"expected one row for each of {len(kept)} kept tokens; received {tuple(rows.shape)}"
        )
    if out.untyped_storage().data_ptr() == features.untyped_storage().data_ptr() and len(kept):
        raise ValueError(
            "out shares memory with features: rows would be read after they were overwritten; "
            "write into another tensor"
        )
