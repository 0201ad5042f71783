"""Triton version for CUDA GPUs: fixed-size, no host synchronisation.

Between two caches each token is moved once. Within one cache it goes through scratch memory, at twice
the traffic: programs run in any order, and whether the slots overlap is known to the device only.
"""

import torch
import triton
import triton.language as tl

from .naive import check, shares_memory

#: Elements of a token (kv_heads x width) that one program moves.
BLOCK = 1024


@triton.jit
def copy_slots(
    from_ptr, to_ptr, source_ptr, destination_ptr, elements,
    from_block, from_head, from_slot, from_dim, to_block, to_head, to_slot, to_dim,
    FROM_SIZE: tl.constexpr, TO_SIZE: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid: (n, kv_heads x width / BLOCK). FROM_SIZE, TO_SIZE: the block sizes of the two caches."""
    i = tl.program_id(0)
    source = tl.load(source_ptr + i).to(tl.int64)
    destination = tl.load(destination_ptr + i).to(tl.int64)
    if (source < 0) | (destination < 0):
        return
    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = element < elements
    head = (element // WIDTH).to(tl.int64)
    dim = element % WIDTH
    read = from_ptr + source // FROM_SIZE * from_block + source % FROM_SIZE * from_slot
    write = to_ptr + destination // TO_SIZE * to_block + destination % TO_SIZE * to_slot
    values = tl.load(read + head * from_head + dim * from_dim, mask=mask)
    tl.store(write + head * to_head + dim * to_dim, values, mask=mask)


def compact_kv(
    kv_cache: torch.Tensor,
    source: torch.Tensor,
    destination: torch.Tensor,
    out: torch.Tensor | None = None,
) -> None:
    """As :func:`kernels.compact_kv.naive.compact_kv`; all tensors on one device, slots in range."""
    out = kv_cache if out is None else out
    check(kv_cache, source, destination, out)
    if len(source) == 0:
        return
    if not shares_memory(kv_cache, out):
        _copy(kv_cache, out, source, destination)
        return
    # Scratch is a cache too, of blocks that hold one token.
    scratch = kv_cache.new_empty(len(source), kv_cache.shape[1], 1, kv_cache.shape[3])
    order = torch.arange(len(source), device=kv_cache.device)
    order = torch.where(source < 0, -1, order)
    _copy(kv_cache, scratch, source, order)
    _copy(scratch, out, order, destination)


def _copy(kv_cache, out, source, destination) -> None:
    elements = kv_cache.shape[1] * kv_cache.shape[3]
    copy_slots[len(source), triton.cdiv(elements, BLOCK)](
        kv_cache, out, source, destination, elements, *kv_cache.stride(), *out.stride(),
        FROM_SIZE=kv_cache.shape[2], TO_SIZE=out.shape[2], WIDTH=kv_cache.shape[3], BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
