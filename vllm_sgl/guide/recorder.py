"""Counting attention while the small model serves many requests at once.

    importance(v) = sum over layers l, heads h, query rows q  of  A[l, h, q, v]

(arXiv 2412.03324, equation 2.) Query rows are every prompt token after the last visual token and every
generated token that was fed back. :class:`Recorder` is told of each layer's attention call, decides
which rows of the batch count, and keeps one float32 per visual token and request.

Pure torch: the batch is described by plain tensors and ``Tracked`` entries, so it is tested with fakes.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from vllm_sgl.kernels.attention_mass import attention_mass


@dataclass
class Tracked:
    """One request under guidance.

    key: our own name for it (vLLM renames requests inside).
    visual: [N] int64, prompt positions of its visual tokens, ascending.
    mass: [N] float32, attention mass of each so far.
    next_row: the first position whose query row has not been counted. Rows are counted in order and
        once: after a preemption the model computes old rows again, and they must not count twice.
    rows, total: counted rows, and their attention mass over all keys (layers and heads summed).
    """

    key: str
    visual: torch.Tensor
    mass: torch.Tensor = field(init=False)
    next_row: int = field(init=False)
    rows: int = 0
    total: float = 0.0

    def __post_init__(self) -> None:
        self.mass = torch.zeros(len(self.visual), dtype=torch.float32)
        self.next_row = int(self.visual[-1]) + 1


@dataclass
class _Step:
    """The rows of one forward pass that count; shared by all layers."""

    source: object
    tracked: list[Tracked | None]
    new_rows: list[int]
    first_row: torch.Tensor
    index: torch.Tensor
    index_start_loc: torch.Tensor
    mass: torch.Tensor
    total: torch.Tensor


class Recorder:
    """Accumulates attention mass per tracked request.

    Args:
        capacity: most requests remembered; beyond it the one untouched for longest is forgotten
            (an aborted request is never collected).
    """

    def __init__(self, capacity: int = 4096) -> None:
        self._entries: OrderedDict[str, Tracked] = OrderedDict()
        self._capacity = capacity
        self._step: _Step | None = None

    def track(self, key: str, visual: Callable[[], torch.Tensor]) -> Tracked:
        """The entry of ``key``; ``visual`` gives its visual tokens' positions when it is first seen."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = Tracked(key, visual())
            while len(self._entries) > self._capacity:
                self._entries.popitem(last=False)
        self._entries.move_to_end(key)
        return entry

    def is_current(self, source: object) -> bool:
        """Whether ``source`` (the step's attention metadata) has been begun already."""
        return self._step is not None and self._step.source is source

    def begin(
        self,
        source: object,
        tracked: Sequence[Tracked | None],
        query_lens: Sequence[int],
        seq_lens: Sequence[int],
        device: torch.device,
    ) -> None:
        """Open a forward pass: one entry per request of the batch, None where nothing is tracked."""
        self.flush()
        first, new, index = [], [], []
        for entry, queries, length in zip(tracked, query_lens, seq_lens, strict=True):
            start = length if entry is None else max(entry.next_row, length - queries)
            count = max(0, length - start)
            first.append(queries - count)
            new.append(count)
            index.append(entry.visual if entry is not None and count else _NOTHING)
            if entry is not None:
                entry.next_row = max(entry.next_row, length)
        lengths = torch.tensor([0] + [len(x) for x in index])
        flat = torch.cat(index)
        self._step = _Step(
            source=source,
            tracked=list(tracked),
            new_rows=new,
            first_row=torch.tensor(first, device=device),
            index=flat.to(device),
            index_start_loc=lengths.cumsum(0).to(device),
            mass=torch.zeros(len(flat), dtype=torch.float32, device=device),
            total=torch.zeros(len(index), dtype=torch.float64, device=device),
        )

    def add_layer(
        self,
        query: torch.Tensor,
        key_cache: torch.Tensor,
        block_table: torch.Tensor,
        seq_lens: torch.Tensor,
        query_start_loc: torch.Tensor,
        scale: float,
    ) -> None:
        """Count one layer of the open pass; shapes as in :func:`attention_mass`."""
        step = self._step
        assert step is not None, "add_layer() before begin()"
        if not any(step.new_rows):
            return
        attention_mass(
            query, key_cache, block_table, seq_lens, query_start_loc, step.first_row,
            step.index, step.index_start_loc, scale, step.mass, step.total,
        )  # fmt: skip

    @torch.inference_mode()  # collected between passes, where vLLM's own inference mode is not on
    def flush(self) -> None:
        """Close the open pass: move its sums into the requests' entries."""
        step, self._step = self._step, None
        if step is None or not any(step.new_rows):
            return
        mass, totals = step.mass.cpu(), step.total.tolist()
        starts = step.index_start_loc.tolist()
        for i, (entry, rows) in enumerate(zip(step.tracked, step.new_rows, strict=True)):
            if entry is not None and rows:
                entry.mass += mass[starts[i] : starts[i + 1]]
                entry.rows += rows
                entry.total += totals[i]

    def take(self, key: str) -> Tracked | None:
        """Remove and return a finished request's entry; None where it was never seen."""
        self.flush()
        return self._entries.pop(key, None)

    def __len__(self) -> int:
        return len(self._entries)


_NOTHING = torch.zeros(0, dtype=torch.int64)
