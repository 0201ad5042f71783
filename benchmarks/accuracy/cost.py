"""What an answer costs, in floating-point operations counted from the models' configs.

    T_plain = V_L + P_L(N) + D_L
    T_sgl   = V_S + P_S(N) + D_S + C_S + V_L + P_L(R*N) + D_L        (no exit)
    T_exit  = V_S + P_S(N) + D_S + C_S

V vision encoder, P prefill, D decode, C consistency pass; L large, S small. V_L counts the tiles that are
encoded: not those of which nothing is kept, unless the method ranks by what the encoder makes of them. Only
matrix products count, two operations per multiplication. It is work, not time: on a GPU decode is bound by
memory, and on any machine two engines have overheads of their own, so a measured speed-up is another matter
(``benchmarks.gpu_check``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm_sgl.prune.base import kept_count

from .baselines.cost import BaselineCost

#: Share of visual tokens shown in the consistency pass: the default of ``sgl_consistency_retention``.
_SHOWN = 0.05


@dataclass(frozen=True)
class ModelCost:
    """FLOPs of one model's parts. tile: of a tile through vision encoder and connector. token: of a token
    through the decoder, without attention. pair: of one query looking at one key. head: of one token's
    logits. tokens_per_tile: visual tokens of a tile."""

    tile: float
    token: float
    pair: float
    head: float
    tokens_per_tile: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "ModelCost":
        """From ``config.json`` in InternVL's chat format, a decoder with a gated MLP."""
        vision, decoder = config["vision_config"], config["llm_config"]
        side = config.get("force_image_size") or vision["image_size"]
        patches = (side // vision["patch_size"]) ** 2
        rows, wide = patches + 1, vision["hidden_size"]
        per_row = 4 * wide**2 + 2 * wide * vision["intermediate_size"] + 2 * rows * wide
        encoder = (
            patches * 3 * vision["patch_size"] ** 2 * wide + vision["num_hidden_layers"] * rows * per_row
        )

        hidden, heads = decoder["hidden_size"], decoder["num_attention_heads"]
        head_size = decoder.get("head_dim") or hidden // heads
        key_values = decoder.get("num_key_value_heads") or heads
        projections = hidden * head_size * (2 * heads + 2 * key_values)
        layers = decoder["num_hidden_layers"]
        visual = int(patches * config["downsample_ratio"] ** 2)
        shuffled = wide / config["downsample_ratio"] ** 2
        connector = visual * (shuffled * hidden + hidden**2)
        return cls(
            tile=2 * (encoder + connector),
            token=2 * layers * (projections + 3 * hidden * decoder["intermediate_size"]),
            pair=2 * layers * 2 * heads * head_size,
            head=2 * hidden * decoder["vocab_size"],
            tokens_per_tile=visual,
        )

    def tiles(self, visual_tokens: int) -> float:
        """How many tiles have so many visual tokens."""
        return visual_tokens / self.tokens_per_tile

    def prefill(self, tokens: int, logits: int = 1) -> float:
        """A causal pass over a prompt. logits: of how many of its tokens."""
        return self.token * tokens + self.pair * tokens * (tokens + 1) / 2 + self.head * logits

    def decode(self, prompt_tokens: int, answer_tokens: int) -> float:
        """Every answer token but the first, which prefill gives. prompt_tokens: those that are kept."""
        steps = max(0, answer_tokens - 1)
        keys = steps * prompt_tokens + steps * (steps + 1) / 2
        return steps * (self.token + self.head) + self.pair * keys

    def answer(
        self, prompt_tokens: int, visual_tokens: int, kept: int, answer_tokens: int, tiles: int | None = None
    ) -> float:
        """A whole request.

        Args:
            prompt_tokens: unpruned.
            visual_tokens: of the prompt. kept: through the decoder.
            tiles: through the vision encoder; None for all of them.
        """
        pruned = prompt_tokens - visual_tokens + kept
        encoded = self.tiles(visual_tokens) if tiles is None else tiles
        return self.tile * encoded + self.prefill(pruned) + self.decode(pruned, answer_tokens)

    def consistency(self, prompt_tokens: int, visual_tokens: int, answer_tokens: int) -> float:
        """The teacher-forced pass over the answer with few visual tokens; vision features are kept."""
        shown = kept_count(_SHOWN, visual_tokens)
        tokens = prompt_tokens - visual_tokens + shown + answer_tokens
        return self.prefill(tokens, logits=answer_tokens)


@dataclass(frozen=True)
class PairCost:
    """Costs of recorded answers of a pair, in FLOPs. baselines: None where nobody needs them."""

    large: ModelCost
    small: ModelCost
    baselines: BaselineCost | None = None

    @classmethod
    def of(cls, large: Mapping[str, Any], small: Mapping[str, Any]) -> "PairCost":
        """From both models' ``config.json``."""
        return cls(ModelCost.of(large), ModelCost.of(small), BaselineCost.of(large))

    def large_answer(self, record: Mapping[str, Any]) -> float:
        """V_L + P_L + D_L of an answer of the large model, pruned or not. Where a record does not say how
        many tiles were encoded, as none did before version 0.2.0, all of them count."""
        return self.large.answer(
            record["prompt_tokens"], record["visual_tokens"], record["kept_tokens"], record["answer_tokens"],
            record.get("encoded_tiles"),
        )  # fmt: skip

    def guide(self, small: Mapping[str, Any]) -> float:
        """V_S + P_S + D_S. small: the record of the small model's own answer."""
        visual = small["visual_tokens"]
        return self.small.answer(small["prompt_tokens"], visual, visual, small["answer_tokens"])

    def consistency(self, small: Mapping[str, Any]) -> float:
        """C_S, where it runs."""
        return self.small.consistency(small["prompt_tokens"], small["visual_tokens"], small["answer_tokens"])

    def baseline(self, method: str, record: Mapping[str, Any]) -> float | None:
        """What a baseline spends on top of :meth:`large_answer`; None where that is unknown."""
        if self.baselines is None:
            return None
        prompt, visual, kept = (record[name] for name in ("prompt_tokens", "visual_tokens", "kept_tokens"))
        text = prompt - visual
        if method == "fastv":
            return self.baselines.fastv(self.large.prefill(prompt), self.large.prefill(text + kept))
        if method == "divprune":
            return self.baselines.divprune(visual)
        if method in ("cdpruner", "dpp"):
            words = text if method == "cdpruner" else 0  # the template's tokens included
            return self.baselines.cdpruner(visual, kept, words)
        return self.baselines.tome(visual, kept) if method == "tome" else None
