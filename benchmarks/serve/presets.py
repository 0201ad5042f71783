"""What is measured: pairs, settings, loads."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from benchmarks.serving.pair import CPU, QUICK, TRUE, Pair

from .settings import DEFAULT, Setting, Step, steps


@dataclass(frozen=True)
class Preset:
    """loads: number of clients -> requests of one run, ascending. repeats: images of one measurement of the
    vision encoder. answers: requests whose answers are compared, with and without a guide, and others whose
    scores give the threshold. together: all servers up at once. rounds: at most. minutes: no round but the
    first begins a load later than this after the start; without effect where servers take turns."""

    pair: Pair
    cpu: bool
    loads: Mapping[int, int]
    retentions: tuple[float, ...]
    max_tokens: int
    repeats: int
    answers: int
    together: bool
    rounds: int
    minutes: float

    @property
    def guided(self) -> list[Setting]:
        """What is asked of SGL."""
        return [Setting("sgl", *both[::-1]) for both in product((False, True), self.retentions)]

    @property
    def settings(self) -> list[Setting]:
        """All that stands between runs of plain vLLM."""
        return [*([DEFAULT] if self.cpu else []), *self.guided]

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of visual tokens that a large model is given."""
        return tuple(dict.fromkeys((1.0, *self.retentions)))

    @cached_property
    def batches(self) -> dict[int, int]:
        """Clients that an engine can tell apart -> requests."""
        return {self.batched(clients): requests for clients, requests in reversed(self.loads.items())}

    def batched(self, clients: int) -> int:
        """So many clients, or as many as an engine answers at a time."""
        return min(clients, self.pair.max_num_seqs)

    def steps(self, round: int) -> Iterator[Step]:
        return steps(self.settings, self.loads, round)


_RETENTIONS = (1.0, 0.35, 0.18, 0.09)

PRESETS = {
    # About 25 minutes on two quiet cores for one round, with starts, answers and components. With so few
    # requests a p99 is the slowest of a run.
    "cpu": Preset(
        pair=CPU, cpu=True, loads={1: 6, 4: 4, 16: 16, 32: 32}, retentions=_RETENTIONS, max_tokens=8,
        repeats=5, answers=7, together=True, rounds=8, minutes=19,
    ),
    # Whether the harness works; its figures mean nothing.
    "quick": Preset(
        pair=QUICK, cpu=True, loads={1: 2, 4: 4}, retentions=(1.0, 0.35), max_tokens=4,
        repeats=2, answers=3, together=True, rounds=1, minutes=2,
    ),
    # One 80 GB device holds only one of the servers at a time.
    "gpu": Preset(
        pair=TRUE, cpu=False, loads={1: 8, 4: 16, 16: 48, 32: 96}, retentions=_RETENTIONS, max_tokens=32,
        repeats=5, answers=7, together=False, rounds=1, minutes=20,
    ),
}  # fmt: skip
