"""Plain torch reference. Loops over requests and blocks of rows; never holds more than one block's scores."""

import torch

#: Most scores (heads x rows x keys) held at once: 32 MiB of float32.
SCORES_LIMIT = 8 << 20


def attention_mass(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    first_row: torch.Tensor,
    index: torch.Tensor,
    index_start_loc: torch.Tensor,
    scale: float,
    mass: torch.Tensor,
    total: torch.Tensor,
    max_rows: int | None = None,
) -> None:
    """Add causal softmax attention probabilities, summed over query rows and heads.

        mass[j]  += sum over heads h, counted rows q of request(j)  of  A[h, q, index[j]]
        total[i] += sum over heads h, counted rows q of request i, all keys k  of  A[h, q, k]

    (arXiv 2412.03324, equation 2, for one layer.) A is softmax(scale * q k^T) over the keys that a row
    may see; the rows of a request are the last ``query_len`` positions of its sequence. Query heads
    share K heads in groups (GQA) where there are fewer K heads. ``total`` grows by rows x heads: a
    caller checks it to know that nothing was skipped.

    Args:
        query: [tokens, heads, head_dim], rotated, any float dtype; rows past the batch are ignored.
        key_cache: [blocks, kv_heads, block_size, head_dim], any strides; holds the batch's own keys too.
        block_table: [requests, blocks per request] int, block numbers of each request in order.
        seq_lens: [requests] int, keys of each request including the rows of this batch.
        query_start_loc: [requests + 1] int, where each request's rows start in ``query``.
        first_row: [requests] int, first row that counts, relative to the request's own rows;
            equal to its number of rows where none counts.
        index: [J] int64, key positions of interest, all requests one after the other; the kernel wants
            those of a request ascending and different, and never reads behind ``index_start_loc[-1]``.
        index_start_loc: [requests + 1] int, where each request's positions start in ``index``.
        scale: factor on q k^T.
        mass: [J] or [lanes, J] float32, added to in place. With lanes, their sum is the result: the
            kernel spreads heads over them, this version uses the first.
        total: [requests] float64, added to in place.
        max_rows: no request has more counted rows than this; known to the caller's host, it sizes the
            kernel's grid (1: decode). This version does not need it.
    """
    mass = mass if mass.dim() == 1 else mass[0]
    kv_heads, block_size, head_dim = key_cache.shape[1:]
    query_starts, first_rows = query_start_loc.tolist(), first_row.tolist()
    index_starts, lengths = index_start_loc.tolist(), seq_lens.tolist()
    for i, keys in enumerate(lengths[: len(first_rows)]):
        begin, end = query_starts[i] + first_rows[i], query_starts[i + 1]
        if begin >= end:
            continue
        blocks = block_table[i, : -(-keys // block_size)].long()
        k = key_cache[blocks].transpose(0, 1).reshape(kv_heads, -1, head_dim)[:, :keys].float()
        columns = torch.zeros(keys, dtype=torch.float32, device=query.device)
        step = max(1, SCORES_LIMIT // (query.shape[1] * keys))
        for start in range(begin, end, step):
            stop = min(start + step, end)
            columns += _column_sums(query[start:stop].float(), k, keys - (end - start), scale)
        span = slice(index_starts[i], index_starts[i + 1])
        mass[span] += columns[index[span]]
        total[i] += columns.double().sum()


def _column_sums(q: torch.Tensor, k: torch.Tensor, position: int, scale: float) -> torch.Tensor:
    """Column sums [keys] of the probabilities of consecutive rows, the first at ``position``.

    q: [rows, heads, head_dim] float32; k: [kv_heads, keys, head_dim] float32.
    """
    rows, heads, head_dim = q.shape
    kv_heads, keys, _ = k.shape
    grouped = q.view(rows, kv_heads, heads // kv_heads, head_dim).permute(1, 2, 0, 3)
    scores = torch.bmm(grouped.reshape(kv_heads, -1, head_dim), k.transpose(1, 2)).mul_(scale)
    scores = scores.view(heads, rows, keys)
    if position + 1 < keys:  # some row may not see every key
        places = torch.arange(position, position + rows, device=q.device)
        future = torch.arange(keys, device=q.device) > places[:, None]
        scores.masked_fill_(future, float("-inf"))
    return torch.softmax(scores, dim=-1).sum(dim=(0, 1))
