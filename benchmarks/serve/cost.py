"""The cost model: which speed-up is possible.

    T_plain = V_L + P_L(N) + D_L
    T_sgl   = V_S + P_S(N) + D_S + C_S + V_L + P_L(R*N) + D_L        (no exit)
    T_exit  = V_S + P_S(N) + D_S + C_S

V vision encoder, P prefill, D decode, C consistency pass; L large, S small. C only where an exit is possible.
Nothing else costs anything here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .presets import Setting

#: In the order of a request's life.
PARTS = (
    "small vision", "small prefill", "small decode", "consistency",
    "large vision", "large prefill", "large decode",
)  # fmt: skip


def kept(retention: float, visual_tokens: int) -> int:
    """Visual tokens that the large model is given."""
    return max(1, math.floor(retention * visual_tokens))


@dataclass(frozen=True)
class Costs:
    """Seconds of one request's parts, alone on the device. large_prefill: by retention."""

    small_vision: float
    small_prefill: float
    small_decode: float
    consistency: float
    large_vision: float
    large_prefill: Mapping[float, float]
    large_decode: float

    def parts(
        self, setting: Setting | None, exit_share: float = 0.0, scored_share: float = 0.0
    ) -> dict[str, float]:
        """Mean seconds per request, by PARTS.

        Args:
            setting: None for plain vLLM.
            exit_share: of requests that end with the small model's answer.
            scored_share: of requests that go through the consistency pass.
        """
        guided = setting is not None and not setting.bypass
        prefill = self.large_prefill[setting.retention if setting else 1.0]
        small = (self.small_vision, self.small_prefill, self.small_decode, scored_share * self.consistency)
        large = (self.large_vision, prefill, self.large_decode)
        seconds = [*(s * guided for s in small), *(s * (1 - exit_share) for s in large)]
        return dict(zip(PARTS, seconds, strict=True))

    def ideal(self, setting: Setting, exit_share: float = 0.0, scored_share: float = 0.0) -> float:
        """T_plain / T_sgl."""
        sgl = sum(self.parts(setting, exit_share, scored_share).values())
        return sum(self.parts(None).values()) / sgl
