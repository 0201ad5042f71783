"""What the attention-mass kernels share: reading paged K, sharing out columns, splitting long sequences."""

import torch
import triton
import triton.language as tl

#: log2(e): kernels work with exp2, the exponential that GPUs have in hardware.
LOG2_E = 1.4426950408889634
#: Stands for "no key seen yet". Finite, so that differences of two of them are not NaN.
NO_MAXIMUM = tl.constexpr(-1.0e30)
#: Triton's interpreter holds bfloat16 as integers, and its tl.dot multiplies those (seen in 3.9).
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
#: Into how many pieces the keys of a request may be cut. Few choices, because each is compiled by itself.
SPLIT_CHOICES = (1, 4, 16)
#: Arguments that are read a few numbers at a time, so that their alignment gains nothing: it is left open,
#: and none of them is a reason to compile again.
SMALL_INPUTS = [
    "table_ptr", "seq_lens_ptr", "query_starts_ptr", "first_row_ptr", "index_ptr", "index_starts_ptr",
]  # fmt: skip
#: Programs to aim for on each multiprocessor. Not tuned on a GPU yet, like the tile sizes.
PROGRAMS_PER_MULTIPROCESSOR = 4


@triton.jit
def load_rows(ptr, offsets, valid, stride_d, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """[len(offsets), BLOCK_D] elements of the rows that start at ``offsets``; 0 where not valid."""
    dims = tl.arange(0, BLOCK_D)
    mask = valid[:, None] & (dims < HEAD_DIM)[None, :]
    return tl.load(ptr + offsets[:, None] + dims[None, :] * stride_d, mask=mask, other=0.0)


@triton.jit
def key_offsets(table_ptr, positions, valid, stride_block, stride_slot, BLOCK_SIZE: tl.constexpr):
    """Where the K of ``positions`` starts, for head 0. ``table_ptr``: the request's row of the block table.

    64-bit, because a K cache may have more than 2^31 elements.
    """
    blocks = tl.load(table_ptr + positions // BLOCK_SIZE, mask=valid, other=0).to(tl.int64)
    return blocks * stride_block + (positions % BLOCK_SIZE) * stride_slot


@triton.jit
def scores(q, k, scale_log2):
    """[rows, keys] float32 scores in units of log 2. float32 inputs are multiplied as such, not as TF32."""
    if INTERPRETED:
        q = q.to(tl.float32)
        k = k.to(tl.float32)
    return tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2


@triton.jit
def counted_rows(request, query_starts_ptr, first_row_ptr, max_rows):
    """(number of counted rows, token of the first one). Counted rows are the last ones of a request."""
    start = tl.load(query_starts_ptr + request).to(tl.int32)
    end = tl.load(query_starts_ptr + request + 1).to(tl.int32)
    first = tl.load(first_row_ptr + request).to(tl.int32)
    rows = tl.maximum(tl.minimum(end - start - first, max_rows), 0)
    return rows, end - rows


@triton.jit
def split_range(split, keys, SPLITS: tl.constexpr, BLOCK_N: tl.constexpr):
    """The keys [start, end) of one split; whole tiles, except for the last."""
    size = tl.cdiv(tl.cdiv(keys, BLOCK_N), SPLITS) * BLOCK_N
    return split * size, tl.minimum(split * size + size, keys)


@triton.jit
def request_of_tile(tile, index_starts_ptr, requests, BLOCK_N: tl.constexpr):
    """(request, which of its tiles) for a tile of columns.

    Request i begins at tile ``index_start_loc[i] // BLOCK_N + i``. That leaves each request room for
    all its columns and at least one tile, and the number of tiles, J // BLOCK_N + requests, follows from
    shapes: the host need not know how many columns each request has.
    """
    low = tl.full((), 0, tl.int32)
    high = low + requests
    while high - low > 1:
        middle = (low + high) // 2
        begins = tl.load(index_starts_ptr + middle).to(tl.int32) // BLOCK_N + middle
        low = tl.where(begins <= tile, middle, low)
        high = tl.where(begins <= tile, high, middle)
    return low, tile - (tl.load(index_starts_ptr + low).to(tl.int32) // BLOCK_N + low)


def choose_splits(programs: int, capacity: int, block_n: int, device: torch.device) -> int:
    """Into how many pieces to cut each sequence, so that every multiprocessor has work.

    programs: programs without splitting. capacity: most keys that a request can have.
    Depends on shapes alone: lengths are on the device, and asking for them would stop the host.
    """
    wanted = 1
    if device.type == "cuda":
        multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
        wanted = PROGRAMS_PER_MULTIPROCESSOR * multiprocessors / max(1, programs)
    wanted = min(wanted, capacity / block_n)
    return next((splits for splits in SPLIT_CHOICES if splits >= wanted), SPLIT_CHOICES[-1])
