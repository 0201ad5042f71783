"""At most one counted row per request, as in decode: K is read once.

A decode row does so little arithmetic per key that reading K is all its cost, and the two passes of
``rows.py`` would read it twice. One row's scores at its visual positions are small beside K itself
(heads x J floats against kv_heads x keys x head_dim elements): the first kernel keeps them, and the
second one only normalises. Sequences are split among programs (split-K) to fill the device.

The layer's own attention reads K and V, so this cannot take much less than half its time while it is a
kernel beside it.
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

#: Heads and columns that a program of the second kernel holds at once.
BLOCK_HEADS, BLOCK_COLUMNS = 16, 128


@triton.jit
def first_at_least(index_ptr, count, position):
    """How many of ``count`` ascending positions lie below ``position``."""
    low = tl.full((), 0, tl.int32)
    high = count
    while low < high:
        middle = (low + high) // 2
        below = tl.load(index_ptr + middle).to(tl.int32) < position
        low = tl.where(below, middle + 1, low)
        high = tl.where(below, high, middle)
    return low


@triton.jit(do_not_specialize=["stride_table", "stride_scores"], do_not_specialize_on_alignment=SMALL_INPUTS)
def decode_scores(
    q_ptr, k_ptr, table_ptr, seq_lens_ptr, query_starts_ptr, first_row_ptr, index_ptr, index_starts_ptr,
    scores_ptr, maxima_ptr, sums_ptr, others_ptr, scale_log2,
    stride_qt, stride_qh, stride_qd, stride_kb, stride_kh, stride_kn, stride_kd, stride_table, stride_scores,
    GROUP: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    SPLITS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Scores at the visual positions, and each split's maximum and sums.

    Grid: (requests, kv heads, splits). Writes scores [heads, J] (in units of log 2) and, [requests,
    heads, SPLITS] each, the maximum, the sum of exp2(score - maximum) and its part outside ``index``.
    """
    request = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    rows, token = counted_rows(request, query_starts_ptr, first_row_ptr, 1)
    if rows == 0:
        return
    keys = tl.load(seq_lens_ptr + request).to(tl.int32)
    index_start = tl.load(index_starts_ptr + request).to(tl.int32)
    count = tl.load(index_starts_ptr + request + 1).to(tl.int32) - index_start
    table_ptr += request.to(tl.int64) * stride_table
    index_ptr += index_start

    member = tl.arange(0, BLOCK_M)
    valid = member < GROUP
    head = kv_head * GROUP + member
    q = load_rows(
        q_ptr, token.to(tl.int64) * stride_qt + head * stride_qh, valid, stride_qd, HEAD_DIM, BLOCK_D
    )

    start, end = split_range(split, keys, SPLITS, BLOCK_N)
    cursor = first_at_least(index_ptr, count, start)
    maxima = tl.full((BLOCK_M,), NO_MAXIMUM, tl.float32)
    sums = tl.zeros((BLOCK_M,), tl.float32)
    others = tl.zeros((BLOCK_M,), tl.float32)
    for n in range(start, end, BLOCK_N):
        positions = n + tl.arange(0, BLOCK_N)
        exists = positions < end
        offsets = key_offsets(table_ptr, positions, exists, stride_kb, stride_kn, BLOCK_SIZE)
        k = load_rows(k_ptr + kv_head * stride_kh, offsets, exists, stride_kd, HEAD_DIM, BLOCK_D)
        s = tl.where(exists[None, :], scores(q, k, scale_log2), float("-inf"))

        # Ascending and distinct, so the entries of ``index`` within this tile are among the next BLOCK_N.
        entry = cursor + tl.arange(0, BLOCK_N)
        wanted = tl.load(index_ptr + entry, mask=entry < count, other=keys).to(tl.int32)
        column = tl.max(tl.where(wanted[:, None] == positions[None, :], entry[:, None], -1), 0)
        visual = exists & (column >= 0)
        where = scores_ptr + head[:, None].to(tl.int64) * stride_scores + (index_start + column)[None, :]
        tl.store(where, s, mask=valid[:, None] & visual[None, :])
        cursor += tl.sum((wanted < tl.minimum(n + BLOCK_N, keys)).to(tl.int32), 0)

        above = tl.maximum(maxima, tl.max(s, 1))
        shrink = tl.exp2(maxima - above)
        p = tl.exp2(s - above[:, None])
        sums = sums * shrink + tl.sum(p, 1)
        others = others * shrink + tl.sum(tl.where(visual[None, :], 0.0, p), 1)
        maxima = above
    out = (request * (KV_HEADS * GROUP) + head) * SPLITS + split
    tl.store(maxima_ptr + out, maxima, mask=valid)
    tl.store(sums_ptr + out, sums, mask=valid)
    tl.store(others_ptr + out, others, mask=valid)


@triton.jit(
    do_not_specialize=["requests", "stride_scores"],
    do_not_specialize_on_alignment=["query_starts_ptr", "first_row_ptr", "index_starts_ptr"],
)
def decode_sums(
    scores_ptr, maxima_ptr, sums_ptr, others_ptr, query_starts_ptr, first_row_ptr, index_starts_ptr,
    mass_ptr, total_ptr, requests, stride_scores,
    HEADS: tl.constexpr, SPLITS: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Normalise a tile of columns and add it up over heads. Grid: (J // BLOCK_N + requests,).

    The first tile of a request (each has one) also adds the share of the other keys to ``total``.
    """
    request, tile = request_of_tile(tl.program_id(0), index_starts_ptr, requests, BLOCK_N)
    rows, _ = counted_rows(request, query_starts_ptr, first_row_ptr, 1)
    index_start = tl.load(index_starts_ptr + request).to(tl.int32)
    count = tl.load(index_starts_ptr + request + 1).to(tl.int32) - index_start
    if (rows == 0) | ((tile > 0) & (tile * BLOCK_N >= count)):
        return
    column = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    exists = column < count
    sums = tl.zeros((BLOCK_N,), tl.float32)
    other_sum = tl.zeros((BLOCK_H,), tl.float32)
    for first in range(0, HEADS, BLOCK_H):
        head = first + tl.arange(0, BLOCK_H)
        valid = head < HEADS
        split = ((request * HEADS + head) * SPLITS)[:, None] + tl.arange(0, SPLITS)[None, :]
        maxima = tl.load(maxima_ptr + split, mask=valid[:, None], other=0.0)
        maximum = tl.max(maxima, 1)
        weights = tl.exp2(maxima - maximum[:, None])
        denominator = tl.sum(weights * tl.load(sums_ptr + split, mask=valid[:, None], other=1.0), 1)
        others = tl.sum(weights * tl.load(others_ptr + split, mask=valid[:, None], other=0.0), 1)
        other_sum += others / denominator

        where = scores_ptr + head[:, None].to(tl.int64) * stride_scores + (index_start + column)[None, :]
        s = tl.load(where, mask=valid[:, None] & exists[None, :], other=float("-inf"))
        sums += tl.sum(tl.exp2(s - maximum[:, None]) * (1.0 / denominator)[:, None], 0)
    mass = mass_ptr + index_start + column
    tl.store(mass, tl.load(mass, mask=exists, other=0.0) + sums, mask=exists)
    outside = tl.where(tile == 0, tl.sum(other_sum.to(tl.float64), 0), 0.0)
    tl.atomic_add(total_ptr + request, tl.sum(sums.to(tl.float64), 0) + outside)


def launch(
    query, key_cache, block_table, seq_lens, query_start_loc, first_row, index, index_start_loc, scale, mass,
    total, splits=None,
):  # fmt: skip
    """Shapes as in :func:`..naive.attention_mass`; ``mass`` [lanes, J], of which the first lane is used.

    splits: default as the batch needs.
    """
    heads, head_dim = query.shape[1:]
    kv_heads, block_size = key_cache.shape[1:3]
    requests, group = len(first_row), heads // kv_heads
    block_n, block_d = 64, max(16, triton.next_power_of_2(head_dim))
    if splits is None:
        capacity = block_table.shape[1] * block_size
        splits = choose_splits(requests * kv_heads, capacity, block_n, query.device)
    kept = torch.empty(heads, index.shape[0], dtype=torch.float32, device=query.device)
    # Three allocations, because the parts of one are not always aligned.
    maxima, sums, others = (
        torch.empty(requests, heads, splits, dtype=torch.float32, device=query.device) for _ in range(3)
    )
    decode_scores[requests, kv_heads, splits](
        query, key_cache, block_table, seq_lens, query_start_loc, first_row, index, index_start_loc,
        kept, maxima, sums, others, scale * LOG2_E,
        *query.stride(), *key_cache.stride(), block_table.stride(0), kept.stride(0),
        GROUP=group, KV_HEADS=kv_heads, HEAD_DIM=head_dim, BLOCK_SIZE=block_size, SPLITS=splits,
        BLOCK_M=max(16, triton.next_power_of_2(group)), BLOCK_N=block_n, BLOCK_D=block_d, num_warps=4,
    )  # fmt: skip
    decode_sums[(index.shape[0] // BLOCK_COLUMNS + requests,)](
        kept, maxima, sums, others, query_start_loc, first_row, index_start_loc, mass, total, requests,
        kept.stride(0), HEADS=heads, SPLITS=splits, BLOCK_H=BLOCK_HEADS, BLOCK_N=BLOCK_COLUMNS, num_warps=4,
    )  # fmt: skip
