"""What a request asks for, and the order in which settings are measured."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.support.pair import Side

from .random_guide import RANDOM

#: sgl: guided. plain: the large model alone, laid out like SGL. default: the same in vLLM's default layout.
#: small: the small model alone. downsampled: plain, but the images are sent smaller. random: pruned without a
#: guide, whatever tokens chance keeps.
Method = Literal["sgl", "plain", "default", "small", "downsampled", "random"]
_SIDES: dict[Method, Side] = {
    "sgl": "guided", "random": "guided", "plain": "plain", "downsampled": "plain", "default": "default",
    "small": "small",
}  # fmt: skip

#: Settings between two runs of plain vLLM.
GROUP = 5


@dataclass(frozen=True)
class Setting:
    """One way to answer a request.

    retention: share of visual tokens that are kept. exits: whether the small model's answer may be all there
    is. threshold: from which score; None for the run's own, a median. policy: which tokens are kept, by name;
    None for the server's.
    """

    method: Method = "sgl"
    retention: float = 1.0
    exits: bool = False
    threshold: float | None = None
    policy: str | None = None

    @property
    def side(self) -> Side:
        """The server that answers."""
        return _SIDES[self.method]

    @property
    def guided(self) -> bool:
        """Whether the small model looks at the request."""
        return self.method == "sgl" and (self.retention < 1 or self.exits)

    @property
    def exact(self) -> bool:
        """Whether exactly the share is kept: ``tiles`` keeps fewer where its open tiles hold fewer."""
        return not (self.policy or "").startswith("tiles")

    @property
    def sent(self) -> float:
        """Share of visual tokens that the images are sent with."""
        return self.retention if self.method == "downsampled" else 1.0

    def xargs(self, threshold: float) -> dict[str, Any]:
        """Its ``vllm_xargs``; none for a server without SGL. threshold: the run's own."""
        if self.side != "guided":
            return {}
        own = threshold if self.threshold is None else self.threshold
        keys = {"sgl_retention": self.retention, "sgl_exit_threshold": own if self.exits else "off"}
        if self.policy is not None:
            keys["sgl_policy"] = self.policy
        return keys | ({RANDOM: 1} if self.method == "random" else {})

    def __str__(self) -> str:
        match self.method:
            case "default":
                return "plain, vLLM's default layout"
            case "plain" | "small":
                return self.method
            case "downsampled" | "random":
                return f"{self.method}, R={self.retention:g}"
        own = "" if self.threshold is None else f" from {self.threshold:g}"
        policy = "" if self.policy is None else f", {self.policy}"
        return f"R={self.retention:g}, exits {'on' if self.exits else 'off'}{own}{policy}"


PLAIN, DEFAULT, SMALL = Setting("plain"), Setting("default"), Setting("small")


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
