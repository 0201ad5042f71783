"""Ragged paged batches whose every unused element is poison."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

NAN = float("nan")
#: Entry of a block table that nothing may follow.
NO_BLOCK = 1 << 29


@dataclass(frozen=True)
class Batch:
    """A batch described as a test reads it. ``counted``: how many of each request's last rows count.

    visual: key positions of interest of each request. padding: rows of the query, entries of the index
    and requests without rows that lie behind the batch, as in a CUDA graph of fixed size.
    """

    query_lens: Sequence[int]
    seq_lens: Sequence[int]
    counted: Sequence[int]
    visual: Sequence[Sequence[int]]
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    block_size: int = 16
    dtype: torch.dtype = torch.float32
    table_width: int = 0
    padding: int = 0
    transposed: bool = False  # K with head_dim outermost inside a block, as vLLM's CPU backend stores it
    device: torch.device = field(default=torch.device("cpu"))

    @property
    def expected_total(self) -> torch.Tensor:
        return torch.tensor([*self.counted] + [0] * self.padding, dtype=torch.float64) * self.heads

    def tensors(self, seed: int = 0) -> dict[str, torch.Tensor | float]:
        """The arguments of attention_mass but for mass and total, which :meth:`outputs` gives."""
        rng = torch.Generator().manual_seed(seed)
        pages = [-(-n // self.block_size) for n in self.seq_lens]
        cache = torch.full((sum(pages) + 3, self.kv_heads, self.block_size, 2 * self.head_dim), NAN)
        free = torch.randperm(len(cache), generator=rng).tolist()
        requests = len(self.seq_lens) + self.padding
        table = torch.full((requests, max(self.table_width, *pages)), NO_BLOCK, dtype=torch.int32)
        for i, length in enumerate(self.seq_lens):
            for page in range(pages[i]):
                table[i, page] = block = free.pop()
                used = min(self.block_size, length - page * self.block_size)
                keys = torch.randn(self.kv_heads, used, self.head_dim, generator=rng)
                cache[block, :, :used, : self.head_dim] = keys
        key_cache = cache.to(self.dtype).to(self.device)[..., : self.head_dim]
        if self.transposed:
            key_cache = key_cache.transpose(-1, -2).contiguous().transpose(-1, -2)

        # Query rows are a view into a wider row, as q in a fused qkv projection.
        rows = torch.full((sum(self.query_lens) + self.padding, self.heads + 2, self.head_dim), NAN)
        starts = _starts(self.query_lens, self.padding)
        for i, count in enumerate(self.counted):
            end = starts[i + 1]
            rows[end - count : end] = 2 * torch.randn(count, self.heads + 2, self.head_dim, generator=rng)
        first_row = [n - c for n, c in zip(self.query_lens, self.counted, strict=True)] + [0] * self.padding
        index = [p for positions in self.visual for p in positions] + [NO_BLOCK] * self.padding
        return {
            "query": rows.to(self.dtype).to(self.device)[:, : self.heads],
            "key_cache": key_cache,
            "block_table": table.to(self.device),
            "seq_lens": torch.tensor([*self.seq_lens] + [0] * self.padding, dtype=torch.int32).to(
                self.device
            ),
            "query_start_loc": starts.int().to(self.device),
            "first_row": torch.tensor(first_row).to(self.device),
            "index": torch.tensor(index, dtype=torch.int64).to(self.device),
            "index_start_loc": _starts([len(v) for v in self.visual], self.padding).to(self.device),
            "scale": self.head_dim**-0.5,
        }

    def outputs(self, lanes: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """(mass, total), not zero at first: kernels add."""
        size = sum(map(len, self.visual)) + self.padding
        mass = torch.arange(size, dtype=torch.float32) % 7
        if lanes:
            mass = torch.stack([mass, *torch.zeros(lanes - 1, size)])
        total = torch.full((len(self.seq_lens) + self.padding,), 0.5, dtype=torch.float64)
        return mass.to(self.device), total.to(self.device)


def _starts(lengths: Sequence[int], padding: int) -> torch.Tensor:
    return torch.tensor([0, *lengths] + [0] * padding).cumsum(0)
