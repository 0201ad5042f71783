"""The cost model: which speed-up is possible.

    T_plain = V_L + L_L(N)
    T_sgl   = V_S + L_S(N) + C_S + E V_L + L_L(R*N)      (no exit)
    T_exit  = V_S + L_S(N) + C_S

V vision encoder, L language model (prefill and decode, which share the steps of an engine under load), C
consistency pass; index L large, S small. C only where an exit is possible. E is the share of tiles of which
something is kept: the others are not encoded. Nothing else costs anything here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from .settings import PLAIN, Setting

#: In the order of a request's life.
PARTS = ("small vision", "small language", "consistency", "large vision", "large language")


@dataclass(frozen=True)
class PartTimes:
    """Seconds of a request's parts at one number of clients: what each adds to the time from the first
    request to the last, by request. large_language: by retention."""

    small_vision: float
    small_language: float
    consistency: float
    large_vision: float
    large_language: Mapping[float, float]

    def parts(
        self, setting: Setting, exit_share: float = 0.0, scored_share: float = 0.0,
        encoded_share: float | None = None,
    ) -> dict[str, float]:  # fmt: skip
        """Mean seconds per request, by PARTS.

        Args:
            exit_share: of requests that end with the small model's answer.
            scored_share: of requests that go through the consistency pass.
            encoded_share: of all tiles, those of requests that exit among them, that the large model encodes;
                None where it encodes whatever reaches it.
        """
        reached = 1 - exit_share
        encoded = reached if encoded_share is None else encoded_share
        small = (self.small_vision, self.small_language, scored_share * self.consistency)
        large = (encoded * self.large_vision, reached * self.large_language[setting.retention])
        seconds = [*(s * setting.guided for s in small), *large]
        return dict(zip(PARTS, seconds, strict=True))

    def ideal(
        self, setting: Setting, exit_share: float = 0.0, scored_share: float = 0.0,
        encoded_share: float | None = None,
    ) -> float:  # fmt: skip
        """T_plain / T_sgl; arguments as of :meth:`parts`."""
        sgl = sum(self.parts(setting, exit_share, scored_share, encoded_share).values())
        return sum(self.parts(PLAIN).values()) / sgl
