"""The cost of a setting, relative to the large model alone.

    T_plain = V_L + P_L(n)
    T_sgl   = V_S + P_S(M) + D_S [+ C_S] + V_L(open tiles) + P_L(n - N + kept)      (no exit)
    T_exit  = V_S + P_S(M) + D_S + C_S

N visual tokens of a prompt of n, M those of the small model, where it cuts images otherwise; V vision
encoder, P prefill, D decode, C consistency pass; L large, S small (the cost model of
:mod:`vllm_sgl.decide.costs`). The large model's decode is not measured, so what exits save of it is left out.
Seconds of passes that ran alone: a loaded server batches them, in both models.
"""

from typing import Protocol

import numpy as np

from vllm_sgl.commands.calibrate.losses import Array, Requests, Setting
from vllm_sgl.decide.costs import TYPICAL_ANSWER, Costs
from vllm_sgl.decide.scores.registry import SCORES


class Cost(Protocol):
    """name: what is counted, in words."""

    name: str

    def of(self, requests: Requests, setting: Setting) -> float:
        """The mean request's cost; 1 is that of the large model alone."""
        ...


class SecondsCost:
    """Seconds of the passes that were measured at start."""

    name = "seconds of both models' passes"

    def __init__(self, costs: Costs) -> None:
        self._costs = costs

    def of(self, requests: Requests, setting: Setting) -> float:
        kept = requests.pruned[setting.policy, setting.retention]
        exits = requests.exits(setting)
        base, each = self._costs.guide
        answer = np.minimum(requests.small_tokens, TYPICAL_ANSWER) - 1
        guide = base + each * self.seen(requests) + self._costs.decode * answer
        if setting.threshold is not None and SCORES[setting.score].needs_consistency:
            # few visual tokens: about a pass over none
            guide = guide + base * ~np.isnan(requests.scores[setting.score])
        if setting.threshold is None and setting.retention == 1:
            guide = np.zeros_like(guide)  # nothing to do
        pruned = self._large(requests, kept.kept_tokens, kept.encoded_tiles)
        plain = self._large(requests, requests.visual_tokens, requests.tiles)
        guided = guide + np.where(exits, 0.0, pruned)
        return float(np.where(requests.guided > 0, guided, plain).sum() / plain.sum())

    def seen(self, requests: Requests) -> Array:
        """Visual tokens of the guide's own model: :meth:`Costs.seen_tokens` of each image, taken as alike."""
        if not self._costs.seen:
            return requests.visual_tokens
        images = np.ones(len(requests)) if requests.images is None else np.maximum(requests.images, 1)
        large, guide = np.array([(0, 0), *self._costs.seen], dtype=np.float64).T
        found: Array = images * np.interp(requests.visual_tokens / images, large, guide)
        return found

    def _large(self, requests: Requests, kept: Array, tiles: Array) -> Array:
        prefill = self.prefill(requests.prompt_tokens - requests.visual_tokens + kept)
        encoded = requests.visual_tokens * tiles / np.maximum(requests.tiles, 1)
        spent: Array = prefill + self._costs.vision * encoded
        return spent

    def prefill(self, tokens: Array) -> Array:
        """:meth:`Costs.large_prefill` of each."""
        measured, seconds = np.array(self._costs.prefill).T
        last = np.searchsorted(measured, tokens).clip(1, len(measured) - 1)
        slope = (seconds[last] - seconds[last - 1]) / (measured[last] - measured[last - 1])
        found: Array = seconds[last - 1] + (tokens - measured[last - 1]) * slope
        return found


class TokensCost:
    """Visual tokens that the large model gets, if no seconds were measured."""

    name = "visual tokens that the large model is given"

    def of(self, requests: Requests, setting: Setting) -> float:
        kept = requests.pruned[setting.policy, setting.retention].kept_tokens
        given = np.where(requests.exits(setting), 0.0, kept)
        return float(given.sum() / max(1.0, requests.visual_tokens.sum()))
