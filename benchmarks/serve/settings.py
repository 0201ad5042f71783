"""What a request asks for, and the order in which settings are measured."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.serving.pair import Side

#: sgl: guided. plain: the large model alone, laid out like SGL. default: the same in vLLM's default layout.
Method = Literal["sgl", "plain", "default"]
_SIDES: dict[Method, Side] = {"sgl": "guided", "plain": "plain", "default": "default"}

#: Settings between two runs of plain vLLM.
GROUP = 5


@dataclass(frozen=True)
class Setting:
    """One way to answer a request. retention: share of visual tokens that are kept. exits: whether the small
    model's answer may be all there is."""

    method: Method = "sgl"
    retention: float = 1.0
    exits: bool = False

    @property
    def side(self) -> Side:
        """The server that answers."""
        return _SIDES[self.method]

    @property
    def guided(self) -> bool:
        """Whether the small model looks at the request."""
        return self.method == "sgl" and (self.retention < 1 or self.exits)

    def xargs(self, threshold: float) -> dict[str, Any]:
        """Its ``vllm_xargs``; none for a server without SGL."""
        if self.side != "guided":
            return {}
        return {
            "sgl_retention": self.retention,
            "sgl_exit_threshold": threshold if self.exits else "off",
        }

    def __str__(self) -> str:
        if self.method == "plain":
            return "plain"
        if self.method == "default":
            return "plain, vLLM's default layout"
        return f"R={self.retention:g}, exits {'on' if self.exits else 'off'}"


PLAIN, DEFAULT = Setting("plain"), Setting("default")


@dataclass(frozen=True)
class Step:
    """One run of ``vllm bench serve``. group: runs of group g stand between the plain runs g and g + 1 of the
    same round and number of clients."""

    round: int
    clients: int
    group: int
    setting: Setting

    def __str__(self) -> str:
        return f"{self.setting}, clients={self.clients}, round {self.round + 1}"


def steps(settings: Sequence[Setting], loads: Iterable[int], round: int) -> Iterator[Step]:
    """One round: every setting at every number of clients, in groups between two runs of plain vLLM.

    Settings start elsewhere in each round, so that none is always measured first.
    """
    turn = round * (GROUP - 1) % len(settings)
    turned = [*settings[turn:], *settings[:turn]]
    groups = [turned[begin : begin + GROUP] for begin in range(0, len(turned), GROUP)]
    for clients in loads:
        for number, group in enumerate(groups):
            yield Step(round, clients, number, PLAIN)
            yield from (Step(round, clients, number, setting) for setting in group)
        yield Step(round, clients, len(groups), PLAIN)
