"""Counting attention while the small model serves many requests at once.

    importance(v) = sum over layers l, heads h, query rows q  of  A[l, h, q, v]

(arXiv 2412.03324, equation 2.) Query rows are every prompt token after the last visual token and every
generated token that was fed back. :class:`Recorder` is told of each layer's attention call, decides
which rows of the batch count, and keeps one float32 per visual token and request.

Pure torch: the batch is described by plain tensors and ``Tracked`` entries, so it is tested with fakes.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch

from vllm_sgl.kernels.attention_mass import attention_mass


@dataclass
class Tracked:
    """One request under guidance.

    visual: [N] int64, prompt positions of its visual tokens, ascending.
    mass: [N] float32, attention mass of each so far.
    next_row: the first position whose query row has not been counted. Rows are counted in order and
        once: after a preemption the model computes old rows again, and they must not count twice.
    rows, total: counted rows, and their attention mass over all keys (layers and heads summed), a float64
        scalar.

    Tensors are on the model's device; nothing is read back before the request is taken.
    """

    visual: torch.Tensor
    mass: torch.Tensor
    total: torch.Tensor
    next_row: int
    rows: int = 0


class Taken(NamedTuple):
    """What was recorded of a finished request, on the CPU; fields as in :class:`Tracked`."""

    mass: torch.Tensor
    rows: int
    total: float


@dataclass
class _Step:
    """The rows of one forward pass that count; shared by all layers."""

    source: object
    counted: list[Tracked]
    which: list[int]
    max_rows: int
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

    def track(self, key: str, visual: Callable[[], torch.Tensor], device: torch.device) -> Tracked:
        """The entry of ``key``, which is our own name for a request (vLLM renames requests inside).

        visual: gives the visual tokens' prompt positions when the key is first seen, [N] int64 on the CPU.
        """
        entry = self._entries.get(key)
        if entry is None:
            positions = visual()
            entry = self._entries[key] = Tracked(
                visual=positions.to(device),
                mass=torch.zeros(len(positions), dtype=torch.float32, device=device),
                total=torch.zeros((), dtype=torch.float64, device=device),
                next_row=int(positions[-1]) + 1,
            )
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
        first, counted, which, lengths, max_rows = [], [], [], [0], 0
        for i, (entry, queries, length) in enumerate(zip(tracked, query_lens, seq_lens, strict=True)):
            start = length if entry is None else max(entry.next_row, length - queries)
            count = max(0, length - start)
            first.append(queries - count)
            lengths.append(len(entry.visual) if entry is not None and count else 0)
            if entry is not None and count:
                counted.append(entry)
                which.append(i)
                max_rows = max(max_rows, count)
                entry.next_row = length
                entry.rows += count
        index = torch.cat([e.visual for e in counted]) if counted else _NOTHING.to(device)
        self._step = _Step(
            source=source,
            counted=counted,
            which=which,
            max_rows=max_rows,
            first_row=_to_device(first, device),
            index=index,
            index_start_loc=_to_device(list(accumulate(lengths)), device),
            mass=torch.zeros(_lanes(device), len(index), dtype=torch.float32, device=device),
            total=torch.zeros(len(first), dtype=torch.float64, device=device),
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
        if not step.counted:
            return
        attention_mass(
            query, key_cache, block_table, seq_lens, query_start_loc, step.first_row,
            step.index, step.index_start_loc, scale, step.mass, step.total, step.max_rows,
        )  # fmt: skip

    @torch.inference_mode()  # collected between passes, where vLLM's own inference mode is not on
    def flush(self) -> None:
        """Close the open pass: move its sums into the requests' entries."""
        step, self._step = self._step, None
        if step is None or not step.counted:
            return
        parts = step.mass.sum(0).split([len(entry.mass) for entry in step.counted])
        totals = step.total.unbind()
        torch._foreach_add_([entry.mass for entry in step.counted], list(parts))
        torch._foreach_add_([entry.total for entry in step.counted], [totals[i] for i in step.which])

    def take(self, key: str) -> Taken | None:
        """Forget a finished request and return what was recorded; None where it was never seen."""
        self.flush()
        entry = self._entries.pop(key, None)
        return entry and Taken(entry.mass.cpu(), entry.rows, entry.total.item())

    def __len__(self) -> int:
        return len(self._entries)


_NOTHING = torch.zeros(0, dtype=torch.int64)


def _lanes(device: torch.device) -> int:
    """Rows of a step's mass: on a GPU the heads of one request are shared out over several programs."""
    return 8 if device.type == "cuda" else 1


def _to_device(values: list[int], device: torch.device) -> torch.Tensor:
    """int64; the copy to a GPU does not make the host wait."""
    tensor = torch.tensor(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
