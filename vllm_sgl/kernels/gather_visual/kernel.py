"""Triton version for CUDA GPUs: gather and cast in one pass over the kept rows, no host synchronisation."""

import torch
import triton
import triton.language as tl

from .naive import check

#: Elements of a row that one program moves: 16 bytes per thread and access at two bytes an element.
BLOCK = 1024


@triton.jit
def gather_rows(
    features_ptr, kept_ptr, out_ptr, hidden, stride_features, stride_hidden, BLOCK: tl.constexpr
):  # fmt: skip
    """Grid: (k, hidden / BLOCK). The rows of ``out`` lie one behind the other."""
    i = tl.program_id(0).to(tl.int64)
    source = tl.load(kept_ptr + i).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < hidden
    values = tl.load(features_ptr + source * stride_features + columns * stride_hidden, mask=mask)
    tl.store(out_ptr + i * hidden + columns, values.to(out_ptr.dtype.element_ty), mask=mask)


def gather_visual(
    features: torch.Tensor, kept: torch.Tensor, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """As :func:`kernels.gather_visual.naive.gather_visual`."""
    check(features, kept)
    count, hidden = len(kept), features.shape[1]
    out = torch.empty(count, hidden, dtype=dtype or features.dtype, device=features.device)
    if out.numel():
        gather_rows[count, triton.cdiv(hidden, BLOCK)](
            features, _on(features.device, kept), out, hidden, *features.stride(), BLOCK=BLOCK, num_warps=4
        )
    return out


def _on(device: torch.device, kept: torch.Tensor) -> torch.Tensor:
    """``kept`` on the device. A copy out of pageable memory would make the host wait for the device."""
    if device.type == "cuda" and kept.device.type == "cpu":
        kept = kept.pin_memory()
    return kept.to(device, non_blocking=True)
