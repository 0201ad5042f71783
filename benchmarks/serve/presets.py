"""What is measured: pairs, settings, loads."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from benchmarks.support.pair import CPU, QUICK, TRUE, Pair, signs

from .settings import DEFAULT, SMALL, Setting, Step, steps
from .sources import Pictures, Signs, Source


@dataclass(frozen=True)
class Preset:
    """asked: where requests come from. loads: number of clients -> requests of one run, ascending. repeats:
    images of one measurement of the vision encoder. answers: requests whose answers are compared, with and
    without a guide. together: all servers up at once. rounds: at most. minutes: no round but the first begins
    a load later than this after the start; without effect where servers take turns. thresholds: exits from
    these scores on; None for the median of a few requests. policies: names for ``sgl_policy``, None for the
    server's own. controls: what else is measured beside SGL; with the small
    model, its encoder's time under load is known."""

    pair: Pair
    cpu: bool
    asked: Source
    loads: Mapping[int, int]
    retentions: tuple[float, ...]
    repeats: int
    answers: int
    together: bool
    rounds: int
    minutes: float
    thresholds: tuple[float | None, ...] = (None,)
    policies: tuple[str | None, ...] = (None,)
    controls: tuple[Setting, ...] = (SMALL,)

    @property
    def guided(self) -> list[Setting]:
        """What is asked of SGL: without exits and with, by policy and retention."""
        exits = [(False, None), *((True, threshold) for threshold in self.thresholds)]
        found = [
            Setting("sgl", retention, *exit, policy if retention < 1 else None)
            for exit in exits
            for policy in self.policies
            for retention in self.retentions
        ]
        return list(dict.fromkeys(found))  # where everything is kept, all policies are one

    @property
    def settings(self) -> list[Setting]:
        """All that stands between runs of plain vLLM."""
        return [*([DEFAULT] if self.cpu else []), *self.guided, *self.controls]

    @property
    def random(self) -> bool:
        """Whether requests ask for random tokens."""
        return any(setting.method == "random" for setting in self.controls)

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of visual tokens that a large model is given."""
        pruned = (s.retention for s in self.settings if s.side == "guided")
        return tuple(dict.fromkeys((1.0, *pruned)))

    @cached_property
    def batches(self) -> dict[int, int]:
        """Clients that an engine can tell apart -> requests."""
        return {self.batched(clients): requests for clients, requests in reversed(self.loads.items())}

    def batched(self, clients: int) -> int:
        """So many clients, or as many as an engine answers at a time."""
        return min(clients, self.pair.max_num_seqs)

    def steps(self, round: int) -> Iterator[Step]:
        return steps(self.settings, self.loads, round)

    def numbers(self, step: Step) -> range:
        """Of the requests of a step: every setting is asked the same, every load and round something else."""
        ends = dict(zip(self.loads, accumulate(self.loads.values()), strict=True))
        end = step.round * sum(self.loads.values()) + ends[step.clients]
        return range(end - self.loads[step.clients], end)


def _pictures(pair: Pair, max_tokens: int) -> Pictures:
    return Pictures(pair.image, pair.visual_tokens, max_tokens)


def _signs(shape: str) -> Preset:
    """The reading pair, widened to about 180 GFLOP for an image of 13 tiles. Four rounds ask 400 questions of
    every setting; about 25 minutes each on two quiet cores."""
    return Preset(
        pair=signs(shape, gflop=14), cpu=True, asked=Signs(), loads={1: 8, 4: 12, 16: 32, 32: 48},
        retentions=_RETENTIONS, repeats=8, answers=16, together=True, rounds=4, minutes=150,
        thresholds=(0.9,), controls=_CONTROLS,
    )  # fmt: skip


_RETENTIONS = (1.0, 0.35, 0.18, 0.09)
_CONTROLS = (
    SMALL, *(Setting(name, share) for name in ("random", "downsampled") for share in (0.35, 0.18))
)  # fmt: skip

PRESETS = {
    # About 25 minutes on two quiet cores for one round, with starts, answers and components. With so few
    # requests a p99 is the slowest of a run.
    "cpu": Preset(
        pair=CPU, cpu=True, asked=_pictures(CPU, 8), loads={1: 6, 4: 4, 16: 16, 32: 32},
        retentions=_RETENTIONS, repeats=5, answers=7, together=True, rounds=8, minutes=19,
    ),
    # Whether the harness works; its figures mean nothing.
    "quick": Preset(
        pair=QUICK, cpu=True, asked=_pictures(QUICK, 4), loads={1: 2, 4: 4}, retentions=(1.0, 0.35),
        repeats=2, answers=3, together=True, rounds=1, minutes=2,
    ),
    "signs-26b": _signs("26B+2B"),
    "signs-38b": _signs("38B+2B"),
    "signs-78b": _signs("78B+2B"),
    # Whether that works: little wider than the trained pair, and a few questions.
    "signs-quick": Preset(
        pair=signs("26B+2B", gflop=2.5), cpu=True, asked=Signs(), loads={1: 2, 4: 6}, retentions=(1.0, 0.35),
        repeats=2, answers=4, together=True, rounds=1, minutes=2, thresholds=(0.9,),
        controls=(SMALL, Setting("random", 0.35), Setting("downsampled", 0.35)),
    ),
    # One 80 GB device holds only one of the servers at a time.
    "gpu": Preset(
        pair=TRUE, cpu=False, asked=_pictures(TRUE, 32), loads={1: 8, 4: 16, 16: 48, 32: 96},
        retentions=_RETENTIONS, repeats=5, answers=7, together=False, rounds=1, minutes=20,
    ),
}  # fmt: skip
