"""Triton version for CUDA GPUs: gather, cast and placement in one pass over the kept rows."""

import torch
import triton
import triton.language as tl

from .naive import check

#: Elements of a row that one program moves: 16 bytes per thread and access at two bytes an element.
BLOCK = 1024


@triton.jit
def gather_rows(
    features_ptr, kept_ptr, out_ptr, rows_ptr, hidden,
    stride_features, stride_hidden, stride_out, stride_out_hidden,
    HAS_ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid: (k, hidden / BLOCK)."""
    i = tl.program_id(0)
    source = tl.load(kept_ptr + i).to(tl.int64)
    target = i.to(tl.int64)
    if HAS_ROWS:
        target = tl.load(rows_ptr + i).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < hidden
    values = tl.load(features_ptr + source * stride_features + columns * stride_hidden, mask=mask)
    out = out_ptr + target * stride_out + columns * stride_out_hidden
    tl.store(out, values.to(out_ptr.dtype.element_ty), mask=mask)


def gather_visual(
    features: torch.Tensor,
    kept: torch.Tensor,
    out: torch.Tensor | None = None,
    rows: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """As :func:`kernels.gather_visual.naive.gather_visual`; indices must be in range, none is checked.

    Indices on the CPU are copied to the device, which is a host synchronisation unless they are pinned.
    """
    check(features, kept, out, rows, dtype)
    count, hidden = len(kept), features.shape[1]
    if out is None:
        out = torch.empty(count, hidden, dtype=dtype or features.dtype, device=features.device)
    if count == 0 or hidden == 0:
        return out
    kept = kept.to(features.device, non_blocking=True)
    target = kept if rows is None else rows.to(features.device, non_blocking=True)
    gather_rows[count, triton.cdiv(hidden, BLOCK)](
        features, kept, out, target, hidden, *features.stride(), *out.stride(),
        HAS_ROWS=rows is not None, BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    return out
