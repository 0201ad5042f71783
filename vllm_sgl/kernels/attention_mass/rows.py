"""Any number of counted rows per request: log-sum-exp of each row, then column sums.

Both kernels recompute the scores, as FlashAttention's backward pass does (arXiv 2205.14135), so rows x
keys is never in memory. Query heads that share a K head are packed with the rows into one tile: packed
row p is row p // group of head p % group.

Triton compiles again where a number is 1 or a multiple of 16, or a pointer is no multiple of 16, that was
not before. ``do_not_specialize`` names the numbers that change from batch to batch; pointers to
``SMALL_INPUTS`` are not assumed to be aligned.
"""

import torch
import triton
import triton.language as tl

from .tiles import (
    LOG2_E,
    NO_MAXIMUM,
    SMALL_INPUTS,
    choose_splits,
    counted_rows,
    key_offsets,
    load_rows,
    request_of_tile,
    scores,
    split_range,
)

#: Programs per request and lane that share the keys outside ``index``, usually the few text tokens.
OTHER_PROGRAMS = 4


@triton.jit(do_not_specialize=["max_rows", "stride_table"], do_not_specialize_on_alignment=SMALL_INPUTS)
def row_statistics(
    q_ptr, k_ptr, table_ptr, seq_lens_ptr, query_starts_ptr, first_row_ptr, maxima_ptr, sums_ptr,
    scale_log2, max_rows,
    stride_qt, stride_qh, stride_qd, stride_kb, stride_kh, stride_kn, stride_kd, stride_table,
    GROUP: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    SPLITS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Maximum and sum of exp2(score - maximum) of each counted row over one split of the keys.

    Grid: (requests x tiles of packed rows, kv heads, splits). Writes [tokens, heads, SPLITS] each.
    """
    tiles = tl.cdiv(max_rows * GROUP, BLOCK_M)
    request = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    rows, first_token = counted_rows(request, query_starts_ptr, first_row_ptr, max_rows)
    if tile * BLOCK_M >= rows * GROUP:
        return
    keys = tl.load(seq_lens_ptr + request).to(tl.int32)
    table_ptr += request.to(tl.int64) * stride_table

    packed = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    valid = packed < rows * GROUP
    token = (first_token + packed // GROUP).to(tl.int64)
    head = kv_head * GROUP + packed % GROUP
    place = keys - rows + packed // GROUP
    q = load_rows(q_ptr, token * stride_qt + head * stride_qh, valid, stride_qd, HEAD_DIM, BLOCK_D)

    start, end = split_range(split, keys, SPLITS, BLOCK_N)
    end = tl.minimum(end, keys - rows + (tile * BLOCK_M + BLOCK_M - 1) // GROUP + 1)  # later keys: the future
    maxima = tl.full((BLOCK_M,), NO_MAXIMUM, tl.float32)
    sums = tl.zeros((BLOCK_M,), tl.float32)
    for n in range(start, end, BLOCK_N):
        positions = n + tl.arange(0, BLOCK_N)
        exists = positions < end
        offsets = key_offsets(table_ptr, positions, exists, stride_kb, stride_kn, BLOCK_SIZE)
        k = load_rows(k_ptr + kv_head * stride_kh, offsets, exists, stride_kd, HEAD_DIM, BLOCK_D)
        seen = exists[None, :] & (positions[None, :] <= place[:, None])
        s = tl.where(seen, scores(q, k, scale_log2), float("-inf"))
        above = tl.maximum(maxima, tl.max(s, 1))
        sums = sums * tl.exp2(maxima - above) + tl.sum(tl.exp2(s - above[:, None]), 1)
        maxima = above
    out = (token * (KV_HEADS * GROUP) + head) * SPLITS + split
    tl.store(maxima_ptr + out, maxima, mask=valid)
    tl.store(sums_ptr + out, sums, mask=valid)


@triton.jit
def nth_other(index_ptr, count, n):
    """Position of the n-th key (n: tile of int32) that is not among ``count`` ascending positions.

    It is n + #{j : index[j] - j <= n}: index[j] - j is how many others lie before index[j]. A binary search.
    """
    low = tl.zeros_like(n)
    high = low + count
    width = count
    while width > 0:
        is_open = low < high
        middle = (low + high) // 2
        before = tl.load(index_ptr + middle, mask=is_open, other=0).to(tl.int32) - middle
        right = is_open & (before <= n)
        high = tl.where(is_open & (before > n), middle, high)
        low = tl.where(right, middle + 1, low)
        width = width // 2
    return n + low


@triton.jit(
    do_not_specialize=["max_rows", "requests", "index_tiles", "stride_table", "stride_mass"],
    do_not_specialize_on_alignment=SMALL_INPUTS,
)
def column_sums(
    q_ptr, k_ptr, table_ptr, seq_lens_ptr, query_starts_ptr, first_row_ptr, index_ptr, index_starts_ptr,
    maxima_ptr, sums_ptr, mass_ptr, total_ptr, scale_log2, max_rows, requests, index_tiles,
    stride_qt, stride_qh, stride_qd, stride_kb, stride_kh, stride_kn, stride_kd, stride_table, stride_mass,
    GROUP: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    SPLITS: tl.constexpr, LANES: tl.constexpr, OTHERS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Probabilities of a tile of columns, summed over counted rows and the heads of one lane.

    Grid: (index_tiles + requests x OTHERS, LANES). The first programs own one tile of ``index`` each;
    the others walk the keys that are not in ``index``, whose sums only enter ``total``.
    """
    program = tl.program_id(0)
    lane = tl.program_id(1)
    in_index = program < index_tiles
    if in_index:
        request, tile = request_of_tile(program, index_starts_ptr, requests, BLOCK_N)
    else:
        request = (program - index_tiles) // OTHERS
        tile = (program - index_tiles) % OTHERS
    tiles_apart = tl.where(in_index, 1 << 20, OTHERS)  # a tile of index and no more, or every OTHERS-th
    rows, first_token = counted_rows(request, query_starts_ptr, first_row_ptr, max_rows)
    if rows == 0:
        return
    keys = tl.load(seq_lens_ptr + request).to(tl.int32)
    index_start = tl.load(index_starts_ptr + request).to(tl.int32)
    count = tl.load(index_starts_ptr + request + 1).to(tl.int32) - index_start
    columns = tl.where(in_index, count, keys - count)
    table_ptr += request.to(tl.int64) * stride_table

    for first in range(tile * BLOCK_N, columns, tiles_apart * BLOCK_N):
        column = first + tl.arange(0, BLOCK_N)
        exists = column < columns
        if in_index:
            positions = tl.load(index_ptr + index_start + column, mask=exists, other=0).to(tl.int32)
        else:
            positions = nth_other(index_ptr + index_start, count, column)
        exists = exists & (positions >= 0) & (positions < keys)
        offsets = key_offsets(table_ptr, positions, exists, stride_kb, stride_kn, BLOCK_SIZE)
        sums = tl.zeros((BLOCK_N,), tl.float32)
        for kv_head in range(lane, KV_HEADS, LANES):
            k = load_rows(k_ptr + kv_head * stride_kh, offsets, exists, stride_kd, HEAD_DIM, BLOCK_D)
            for p in range(0, rows * GROUP, BLOCK_M):
                packed = p + tl.arange(0, BLOCK_M)
                valid = packed < rows * GROUP
                token = (first_token + packed // GROUP).to(tl.int64)
                head = kv_head * GROUP + packed % GROUP
                offset = token * stride_qt + head * stride_qh
                q = load_rows(q_ptr, offset, valid, stride_qd, HEAD_DIM, BLOCK_D)

                statistics = (token * (KV_HEADS * GROUP) + head) * SPLITS
                split = statistics[:, None] + tl.arange(0, SPLITS)[None, :]
                maxima = tl.load(maxima_ptr + split, mask=valid[:, None], other=0.0)
                maximum = tl.max(maxima, 1)
                weights = tl.load(sums_ptr + split, mask=valid[:, None], other=1.0)
                denominator = tl.sum(weights * tl.exp2(maxima - maximum[:, None]), 1)

                place = keys - rows + packed // GROUP
                seen = valid[:, None] & exists[None, :] & (positions[None, :] <= place[:, None])
                s = tl.where(seen, scores(q, k, scale_log2), float("-inf"))
                sums += tl.sum(tl.exp2(s - maximum[:, None]) * (1.0 / denominator)[:, None], 0)
        if in_index:
            mass = mass_ptr + lane * stride_mass + index_start + column
            tl.store(mass, tl.load(mass, mask=exists, other=0.0) + sums, mask=exists)
        tl.atomic_add(total_ptr + request, tl.sum(sums.to(tl.float64), 0))


def launch(
    query, key_cache, block_table, seq_lens, query_start_loc, first_row, index, index_start_loc, scale, mass,
    total, max_rows, splits=None,
):  # fmt: skip
    """Shapes as in :func:`..naive.attention_mass`; ``mass`` [lanes, J].

    splits: default as the batch needs.
    """
    tokens, heads, head_dim = query.shape
    kv_heads, block_size = key_cache.shape[1:3]
    requests, lanes = len(first_row), len(mass)
    block_m, block_n, block_d = tile_shape(head_dim, query.element_size())
    row_tiles = requests * triton.cdiv(max_rows * (heads // kv_heads), block_m)
    capacity = block_table.shape[1] * block_size
    splits = splits or choose_splits(row_tiles * kv_heads, capacity, block_n, query.device)
    # Two allocations, because the halves of one are not always aligned.
    maxima, sums = (
        torch.empty(tokens, heads, splits, dtype=torch.float32, device=query.device) for _ in range(2)
    )
    strides = (*query.stride(), *key_cache.stride(), block_table.stride(0))
    shared = {
        "GROUP": heads // kv_heads, "KV_HEADS": kv_heads, "HEAD_DIM": head_dim, "BLOCK_SIZE": block_size,
        "SPLITS": splits, "BLOCK_M": block_m, "BLOCK_D": block_d,
        "num_warps": 8 if query.element_size() > 2 else 4,
    }  # fmt: skip
    row_statistics[row_tiles, kv_heads, splits](
        query, key_cache, block_table, seq_lens, query_start_loc, first_row, maxima, sums,
        scale * LOG2_E, max_rows, *strides, BLOCK_N=block_n, **shared,
    )  # fmt: skip
    # With one lane the tiles alone must fill the device, so they are narrower.
    block_n = block_n if lanes > 1 else max(16, block_n // 2)
    index_tiles = index.shape[0] // block_n + requests
    column_sums[index_tiles + requests * OTHER_PROGRAMS, lanes](
        query, key_cache, block_table, seq_lens, query_start_loc, first_row, index, index_start_loc,
        maxima, sums, mass, total, scale * LOG2_E, max_rows, requests, index_tiles, *strides, mass.stride(0),
        LANES=lanes, OTHERS=OTHER_PROGRAMS, BLOCK_N=block_n, **shared,
    )  # fmt: skip


def tile_shape(head_dim: int, element_size: int) -> tuple[int, int, int]:
    """(packed rows, keys, padded head_dim) of a tile. A Q tile and a few K tiles must fit shared memory.

    float32 works but is not meant to be fast: models are served in 16 bits.
    """
    block_d = max(16, triton.next_power_of_2(head_dim))
    if element_size > 2:  # float32 is multiplied outside the tensor cores, out of registers
        return 32, 32, block_d
    return 64, 64, block_d
