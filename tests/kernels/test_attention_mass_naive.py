"""The naive attention-mass reference against a dense softmax over unpaged keys."""

from dataclasses import dataclass, field

import pytest
import torch

from vllm_sgl.kernels.attention_mass import naive

HEAD_DIM = 8
SCALE = HEAD_DIM**-0.5


@dataclass
class Request:
    """keys: sequence length; rows: how many last positions this batch computes; first: first that
    counts (== rows for none); index: key positions of interest."""

    keys: int
    rows: int
    first: int = 0
    index: list[int] = field(default_factory=list)


@dataclass
class Batch:
    """A paged batch. Everything that no request owns is NaN: unused blocks, the tail of a last block,
    table entries past a request's own, query rows past the batch."""

    requests: list[Request]
    heads: int = 4
    kv_heads: int = 2
    block_size: int = 16
    transposed: bool = False
    dtype: torch.dtype = torch.float32

    def __post_init__(self):
        generator = torch.Generator().manual_seed(0)
        counts = [-(-r.keys // self.block_size) for r in self.requests]
        total = sum(counts) + 3
        order = torch.randperm(total, generator=generator).tolist()
        shape = (total, self.kv_heads, self.block_size, HEAD_DIM)
        if self.transposed:  # as vLLM's CPU layouts store K inside a block, V beside it
            packed = torch.full((total, self.kv_heads, 2, HEAD_DIM, self.block_size), float("nan"))
            self.key_cache = packed.to(self.dtype)[:, :, 0].transpose(-1, -2)
        else:
            self.key_cache = torch.full(shape, float("nan"), dtype=self.dtype)
        assert self.key_cache.shape == shape
        poison = order[sum(counts)]
        self.block_table = torch.full((len(counts), max(counts) + 2), poison, dtype=torch.int32)
        self.keys, queries = [], []
        for i, (request, count) in enumerate(zip(self.requests, counts, strict=True)):
            own = [order.pop() if order[-1] != poison else order.pop(-2) for _ in range(count)]
            self.block_table[i, :count] = torch.tensor(own, dtype=torch.int32)
            keys = torch.randn(self.kv_heads, request.keys, HEAD_DIM, generator=generator)
            keys = keys.to(self.dtype)
            for place in range(request.keys):
                block = own[place // self.block_size]
                self.key_cache[block, :, place % self.block_size] = keys[:, place]
            self.keys.append(keys.float())
            queries.append(torch.randn(request.rows, self.heads, HEAD_DIM, generator=generator))
        padding = torch.full((5, self.heads, HEAD_DIM), float("nan"))
        self.query = torch.cat([*queries, padding]).to(self.dtype)
        self.queries = [q.to(self.dtype).float() for q in queries]

    def run(self, mass=None, total=None):
        starts = torch.tensor([0, *(r.rows for r in self.requests)]).cumsum(0).int()
        index = [torch.tensor(r.index, dtype=torch.int64) for r in self.requests]
        index_starts = torch.tensor([0, *map(len, index)]).cumsum(0)
        flat = torch.cat(index)
        mass = torch.zeros(len(flat)) if mass is None else mass
        total = torch.zeros(len(self.requests), dtype=torch.float64) if total is None else total
        naive.attention_mass(
            self.query, self.key_cache, self.block_table,
            torch.tensor([r.keys for r in self.requests], dtype=torch.int32), starts,
            torch.tensor([r.first for r in self.requests]), flat, index_starts, SCALE, mass, total,
        )  # fmt: skip
        return mass, total

    def dense(self):
        mass, total = [], []
        for request, keys, query in zip(self.requests, self.keys, self.queries, strict=True):
            keys = keys.repeat_interleave(self.heads // self.kv_heads, dim=0)
            columns, rows = torch.zeros(request.keys, dtype=torch.float64), 0
            for row in range(request.first, request.rows):
                place = request.keys - request.rows + row
                scores = (keys[:, : place + 1].double() @ query[row].double()[:, :, None]) * SCALE
                columns[: place + 1] += scores.squeeze(-1).softmax(-1).sum(0)
                rows += 1
            mass.append(columns[torch.tensor(request.index, dtype=torch.int64)])
            total.append(rows * self.heads)
        return torch.cat(mass).float(), torch.tensor(total, dtype=torch.float64)

    def check(self):
        mass, total = self.run()
        expected_mass, expected_total = self.dense()
        torch.testing.assert_close(mass, expected_mass, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(total, expected_total, atol=0, rtol=1e-5)


RAGGED = {
    "prefill": [Request(20, 20, 12, [1, 2, 5, 11]), Request(70, 70, 60, list(range(50)))],
    "one row of each": [Request(33, 1, 0, [0, 31, 32]), Request(1, 1, 0, [0]), Request(128, 1, 0, [64])],
    "prefill and decode": [
        Request(40, 1, 0, [3, 4, 39]),
        Request(25, 25, 20, [7]),
        Request(16, 4, 2, [0, 15]),
    ],
    "last chunk of a prompt": [Request(130, 37, 9, list(range(100)))],
    "nothing counts in the middle": [
        Request(20, 5, 1, [0, 9]),
        Request(30, 10, 10, []),
        Request(17, 2, 0, [16]),
    ],
    "nothing counts at all": [Request(20, 5, 5, []), Request(30, 1, 1, [])],
    "every row counts": [Request(48, 48, 0, list(range(48)))],
    "keys end with a block": [Request(128, 3, 0, [0, 127]), Request(32, 32, 31, [31])],
    "rows without positions of interest": [Request(10, 10, 3, []), Request(12, 3, 0, [2])],
}


@pytest.mark.parametrize("transposed", [False, True], ids=["plain K", "transposed K"])
@pytest.mark.parametrize("block_size", [16, 32, 128])
@pytest.mark.parametrize("requests", RAGGED.values(), ids=RAGGED)
def test_ragged_batches_equal_a_dense_softmax(requests, block_size, transposed):
    Batch(requests, block_size=block_size, transposed=transposed).check()


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 1), (6, 2), (1, 1), (8, 2)])
def test_query_heads_share_key_heads_in_groups(heads, kv_heads):
    Batch(RAGGED["prefill and decode"], heads=heads, kv_heads=kv_heads).check()


@pytest.mark.parametrize("limit", [1, 4 * 128, 4 * 128 * 3], ids=["one row", "one long row", "few rows"])
@pytest.mark.parametrize("requests", RAGGED.values(), ids=RAGGED)
def test_blocks_of_rows_equal_all_rows_at_once(requests, limit, monkeypatch):
    monkeypatch.setattr(naive, "SCORES_LIMIT", limit)
    Batch(requests).check()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_inputs_are_summed_in_float32(dtype):
    Batch(RAGGED["last chunk of a prompt"], dtype=dtype).check()


def test_results_are_added_to_what_is_there():
    batch = Batch(RAGGED["prefill and decode"])
    once_mass, once_total = batch.run()
    mass, total = batch.run()
    batch.run(mass, total)
    torch.testing.assert_close(mass, 2 * once_mass)
    torch.testing.assert_close(total, 2 * once_total)


def test_requests_after_the_described_ones_are_ignored():
    """vLLM pads sequence lengths and the block table to the largest batch."""
    batch = Batch(RAGGED["prefill"])
    expected = batch.run()
    batch.block_table = torch.cat([batch.block_table, torch.full_like(batch.block_table, 10**6)])
    seq_lens = torch.tensor([r.keys for r in batch.requests] + [99, 99])
    mass, total = torch.zeros_like(expected[0]), torch.zeros_like(expected[1])
    index = torch.cat([torch.tensor(r.index) for r in batch.requests])
    naive.attention_mass(
        batch.query, batch.key_cache, batch.block_table, seq_lens, torch.tensor([0, 20, 90, 90, 90]),
        torch.tensor([12, 60]), index, torch.tensor([0, 4, 54]), SCALE, mass, total,
    )  # fmt: skip
    torch.testing.assert_close(mass, expected[0])
    torch.testing.assert_close(total, expected[1])


def test_nan_in_a_used_key_would_be_seen():
    """The poison of the other tests has teeth: the same value in a key that is read spoils the result."""
    batch = Batch(RAGGED["one row of each"])
    batch.key_cache[batch.block_table[0, 1], :, 0] = float("nan")
    assert batch.run()[0].isnan().any()
