"""What is measured: pairs, settings, loads."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from benchmarks.serving.pair import CPU, QUICK, TRUE, Pair

#: Settings between two runs of plain vLLM.
GROUP = 4


@dataclass(frozen=True)
class Setting:
    """What a request asks of SGL. exits: whether it may end with the small model's answer."""

    retention: float
    exits: bool

    @property
    def bypass(self) -> bool:
        """Whether the small model never runs."""
        return self.retention == 1 and not self.exits

    def xargs(self, threshold: float) -> dict[str, Any]:
        """Its ``vllm_xargs``."""
        return {
            "sgl_retention": self.retention,
            "sgl_exit_threshold": threshold if self.exits else "off",
        }

    def __str__(self) -> str:
        return f"R={self.retention:g}, exits {'on' if self.exits else 'off'}"


@dataclass(frozen=True)
class Step:
    """One run of ``vllm bench serve``. setting: None for plain vLLM. group: SGL runs of group g stand between
    the plain runs g and g + 1 of the same round and number of clients."""

    round: int
    clients: int
    group: int
    setting: Setting | None

    def __str__(self) -> str:
        return f"{self.setting or 'plain'}, clients={self.clients}, round {self.round + 1}"


@dataclass(frozen=True)
class Preset:
    """loads: number of clients -> requests of one run. repeats: measurements of a component. answers:
    requests whose answers are compared, with and without a guide, and others whose scores give the
    threshold. together: all servers up at once. rounds: at most. minutes: no round but the first begins a
    load later than this after the start; without effect where servers take turns."""

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
    def settings(self) -> list[Setting]:
        return [Setting(retention, exits) for exits, retention in product((False, True), self.retentions)]

    def steps(self, round: int) -> Iterator[Step]:
        """Settings start elsewhere in each round, so that none is always measured first."""
        turn = round * (GROUP - 1) % len(self.settings)
        settings = [*self.settings[turn:], *self.settings[:turn]]
        groups = [settings[begin : begin + GROUP] for begin in range(0, len(settings), GROUP)]
        for clients in self.loads:
            for number, group in enumerate(groups):
                yield Step(round, clients, number, None)
                yield from (Step(round, clients, number, setting) for setting in group)
            yield Step(round, clients, len(groups), None)


_RETENTIONS = (1.0, 0.35, 0.18, 0.09)

PRESETS = {
    # 20 minutes on two quiet cores: 4 for starts, answers and components, the rest for the first round, and
    # what fits of a second one. With so few requests a p99 is the slowest of a run.
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
