"""Counts attention while the small model serves many requests at once.

    importance(v) = sum over layers l, heads h, query rows q  of  A[l, h, q, v]

(arXiv 2412.03324, equation 2.) :func:`query_rows` says which query rows count. :class:`Recorder` is told of
each layer's attention call, finds those rows in the batch, and keeps one float32 per visual token and
request.

Pure torch: the batch is described by plain tensors and ``Tracked`` entries, so it is tested with fakes.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch

from vllm_sgl.config import QueryRows
from vllm_sgl.kernels.attention_mass import attention_mass


def query_rows(
    choice: QueryRows, visual_end: int, prompt_end: int, end: int, last_turn: int | None = None
) -> range:
    """Positions of the query rows that count in a request whose rows up to ``end`` are computed.

    In the choice's name, ``prompt`` is every prompt token after the last visual token, ``last_turn`` those of
    them that are in the last user turn or behind it, ``last_prompt`` the prompt's last token alone, and
    ``generated`` every generated token that is fed back; the last sampled one never is. The paper counts
    ``prompt+generated``.

    The range may be empty: an answer of one token has no generated row, a prompt that ends in an image no
    prompt row. Then the prompt's last row stands in (see :class:`Tracked`), so that importance is never zero.

    Args:
        visual_end, prompt_end: one past the last visual token, and past the last prompt token.
        last_turn: where the last user turn begins; None where the prompt has no turns.
    """
    first = choice.split("+")[0]
    turn = max(visual_end, last_turn or 0)
    start = {"last_turn": turn, "prompt": visual_end, "last_prompt": prompt_end - 1, "generated": prompt_end}[
        first
    ]
    return range(start, end if choice.endswith("generated") else prompt_end)


@dataclass
class Tracked:
    """One request under guidance.

    visual: [N] int64, prompt positions of its visual tokens, ascending.
    mass: [N] float32, attention mass of each so far.
    due: positions whose query rows are to count. Until the first of them is computed, the row before it
        stands in, because a generated row may never come.
    next_row: the first position whose query row has not been counted. Rows are counted in order and
        once: after a preemption the model computes old rows again, and they must not count twice.
    rows, total: counted rows, and their attention mass over all keys (layers and heads summed), a float64
        scalar.

    Tensors are on the model's device; nothing is read back before the request is taken.
    """

    visual: torch.Tensor
    mass: torch.Tensor
    total: torch.Tensor
    due: range
    next_row: int
    rows: int = 0

    def claim(self, begin: int, end: int) -> int:
        """How many of the rows ``begin`` to ``end - 1`` that a pass computes count; these are the last
        ones."""
        rows = range(self.due.start, min(end, self.due.stop))
        if not rows:
            rows = range(self.due.start - 1, min(end, self.due.start))
        elif self.next_row == self.due.start:  # the row that stood in is all that was counted
            self.mass.zero_()
            self.total.zero_()
            self.rows = 0
        first = max(begin, rows.start, self.next_row)
        if first >= rows.stop:
            return 0
        # A pass with rows still to count has none past due.stop: those are of generated tokens, and come
        # after every prompt row. If one did, it would count here and show in the total.
        self.next_row = end
        self.rows += end - first
        return end - first


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

    def track(
        self, key: str, visual: Callable[[], torch.Tensor], due: range, device: torch.device
    ) -> Tracked:
        """The entry of ``key``, which is our own name for a request (vLLM renames requests inside).

        visual: gives the visual tokens' prompt positions when the key is first seen, [N] int64 on the CPU.
        due: as in :class:`Tracked`.
        """
        entry = self._entries.get(key)
        if entry is None:
            positions = visual()
            entry = self._entries[key] = Tracked(
                visual=_to_device(positions, device),
                mass=torch.zeros(len(positions), dtype=torch.float32, device=device),
                total=torch.zeros((), dtype=torch.float64, device=device),
                due=due,
                next_row=due.start - 1,
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
            count = 0 if entry is None else entry.claim(length - queries, length)
            first.append(queries - count)
            lengths.append(len(entry.visual) if entry is not None and count else 0)
            if entry is not None and count:
                counted.append(entry)
                which.append(i)
                max_rows = max(max_rows, count)
        index = torch.cat([e.visual for e in counted]) if counted else _NOTHING.to(device)
        self._step = _Step(
            source=source,
            counted=counted,
            which=which,
            max_rows=max_rows,
            first_row=_to_device(first, device),
            index=index,
            index_start_loc=_to_device(list(accumulate(lengths)), device),
            mass=torch.zeros(lanes(device), len(index), dtype=torch.float32, device=device),
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

    def take(self, keys: Sequence[str]) -> list[Taken | None]:
        """Forget finished requests and return what was recorded of each; None where it was never seen.

        The host waits for the device once, however many there are.
        """
        self.flush()
        entries = [self._entries.pop(key, None) for key in keys]
        known = [entry for entry in entries if entry is not None]
        if not known:
            return [None] * len(keys)
        # Totals are float64, masses float32: each travels as it is, in one copy of bytes.
        parts = [*(entry.mass.view(torch.uint8) for entry in known)]
        parts += [entry.total.view(1).view(torch.uint8) for entry in known]
        found = iter(torch.cat(parts).cpu().split([len(part) for part in parts]))
        masses = [next(found).clone().view(torch.float32) for _ in known]
        totals = [next(found).clone().view(torch.float64).item() for _ in known]
        taken = iter(
            Taken(mass, entry.rows, total) for mass, entry, total in zip(masses, known, totals, strict=True)
        )
        return [None if entry is None else next(taken) for entry in entries]

    def __len__(self) -> int:
        return len(self._entries)


_NOTHING = torch.zeros(0, dtype=torch.int64)


def lanes(device: torch.device) -> int:
    """Rows of a step's mass: on a GPU the heads of one request are shared out over several programs."""
    return 8 if device.type == "cuda" else 1


def _to_device(values: list[int] | torch.Tensor, device: torch.device) -> torch.Tensor:
    """int64; the copy to a GPU does not make the host wait."""
    tensor = torch.as_tensor(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
