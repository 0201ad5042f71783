"""When guidance pays: what it costs against what it saves, in seconds measured on this machine.

    guidance = P_S(N) + V_S(N) + D_S        saving = P_L(n) - P_L(n - N + R*N)

N visual tokens of a prompt of n (on the left those of the small model, where it cuts images otherwise); V
vision encoder, P prefill, D decode; S small, L large. This is the cost model of arXiv 2412.03324's method;
the large model's own V and D count as equal with and without pruning. The chance of an
exit is not known beforehand, so where one is possible the whole prefill counts as what may be saved.

Tiles of which nothing is kept are not encoded, and that is not counted: how many close is known only when the
guide has looked, and no policy promises any. Under ``tiles`` at most min(opening tokens, tiles) are open, and
opening tokens (:func:`vllm_sgl.prune.tiles.open_share`) are 12 % of all at 35 % kept, 6.8 % at 9 %: 31 and 17
for each tile of 256 visual tokens, where one in every tile opens all. A bound below all would need tiles of
fewer than 9 and 15 visual tokens. An average over the requests so far would make the verdict depend on what
others asked, and would know nothing where nothing is guided yet.

Pure. Costs are measured once, when a server starts: as long as it runs, the same request gets the same
treatment.
"""

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise

from vllm_sgl.core import Facts
from vllm_sgl.prune.base import kept_count

#: Tokens of an answer of a few words: what is measured of a guide's decode.
TYPICAL_ANSWER = 8


@dataclass(frozen=True)
class Costs:
    """Seconds of unloaded passes.

    guide: small model's pass over an image up to its first token, by visual tokens: two numbers, of none and
        of each visual token.
    decode: small model, per further token.
    prefill: large model, text prompts of increasing length: (tokens, seconds), ascending, two or more.
    vision: large model's vision encoder, per visual token; 0 where it was not measured.
    seen: visual tokens of some images for the large model and for the guide's, ascending, where these differ:
        (large, guide); empty where they do not.
    """

    guide: tuple[float, float]
    decode: float
    prefill: tuple[tuple[int, float], ...]
    vision: float = 0.0
    seen: tuple[tuple[int, int], ...] = ()

    @property
    def vision_share(self) -> float:
        """V / (V + P) of the large model, for an image as long as the longest prompt that was measured."""
        tokens, seconds = self.prefill[-1]
        return self.vision * tokens / (self.vision * tokens + seconds)

    def guidance(self, visual_tokens: int, answer_tokens: int) -> float:
        """Seconds that the small model takes.

        Args:
            visual_tokens: of the guide's own model.
            answer_tokens: the most that it generates. Long answers reach that, and wait for it.
        """
        base, each = self.guide
        return base + each * visual_tokens + self.decode * (answer_tokens - 1)

    def large_prefill(self, tokens: int) -> float:
        """Seconds of the large model's prefill; linear between and beyond measured lengths."""
        pairs = list(zip(self.prefill, self.prefill[1:], strict=False))
        (x0, y0), (x1, y1) = next((pair for pair in pairs if tokens <= pair[1][0]), pairs[-1])
        return y0 + (tokens - x0) * (y1 - y0) / (x1 - x0)

    def seen_tokens(self, visual_tokens: int) -> int:
        """The guide's visual tokens, estimated from the large model's: interpolated between known images, in
        proportion below the smallest, constant above the largest."""
        if not self.seen:
            return visual_tokens
        known = ((0, 0), *self.seen)
        for (x0, y0), (x1, y1) in pairwise(known):
            if visual_tokens <= x1:
                return round(y0 + (visual_tokens - x0) * (y1 - y0) / (x1 - x0))
        return known[-1][1]

    def pays(self, facts: Facts, retention: float, exit_possible: bool, guide_tokens: int) -> bool:
        """Whether guiding a request may save more than it costs.

        Args:
            exit_possible: whether the request may exit.
            guide_tokens: the most tokens that the small model generates.
        """
        new = sum(facts.visual_tokens[facts.known_items :])
        tokens = facts.prompt_tokens - facts.known_tokens
        saving = self.large_prefill(tokens)
        if not exit_possible:
            saving -= self.large_prefill(tokens - new + kept_count(retention, new)) if new else saving
        limits = [guide_tokens] if facts.max_tokens is None else [guide_tokens, facts.max_tokens]
        visual = sum(facts.visual_tokens)
        seen = self.seen_tokens(visual) if facts.seen_tokens is None else facts.seen_tokens
        return saving > self.guidance(seen, min(limits))

    def break_even(self, retention: float, exit_possible: bool, guide_tokens: int, most: int) -> int | None:
        """The fewest of the large model's visual tokens from which guidance pays, up to `most`; None if
        it does not pay for `most`."""

        def pays(visual: int) -> bool:
            facts = Facts(visual_tokens=(visual,), prompt_tokens=visual)
            return self.pays(facts, retention, exit_possible, guide_tokens)

        if not pays(most):
            return None
        return bisect_left(range(1, most), True, key=pays) + 1  # prefill grows faster than a guide's work
