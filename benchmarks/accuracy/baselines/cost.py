"""What the baselines cost on top of the large model's own pass over the tokens that it keeps.

In FLOPs of matrix products, as in ``benchmarks/accuracy/cost.py``; comparing and sorting are not counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import tome

#: FastV drops behind this layer of the decoder (arXiv 2403.06764, K = 2).
_FASTV_LAYERS = 2


@dataclass(frozen=True)
class BaselineCost:
    """Shapes of the large model that a baseline's own work depends on.

    layers, hidden: of the decoder. vision_layers, vision_width, vision_units, vision_heads: of the encoder,
    units in its MLP. cells: visual tokens of a tile, four patches each.
    """

    layers: int
    hidden: int
    vision_layers: int
    vision_width: int
    vision_units: int
    vision_heads: int
    cells: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "BaselineCost":
        """From ``config.json`` in InternVL's chat format."""
        vision, decoder = config["vision_config"], config["llm_config"]
        side = config.get("force_image_size") or vision["image_size"]
        return cls(
            layers=decoder["num_hidden_layers"],
            hidden=decoder["hidden_size"],
            vision_layers=vision["num_hidden_layers"],
            vision_width=vision["hidden_size"],
            vision_units=vision["intermediate_size"],
            vision_heads=vision["num_attention_heads"],
            cells=int((side // vision["patch_size"]) ** 2 * config["downsample_ratio"] ** 2),
        )

    def fastv(self, prefill: float, pruned_prefill: float) -> float:
        """Two layers of all tokens instead of those that are kept: FastV drops behind them, in the very pass
        that ranks. (Here its ranking is used from the first layer on.) Prefills: of the large model."""
        return _FASTV_LAYERS / self.layers * (prefill - pruned_prefill)

    def divprune(self, tokens: int) -> float:
        """Similarities of all pairs."""
        return 2 * tokens**2 * self.hidden

    def cdpruner(self, tokens: int, kept: int, words: int) -> float:
        """Similarities of all pairs in the encoder's width, relevance, and the rows of a Cholesky factor.

        words: tokens of the question.
        """
        rows = kept * (kept - 1) / 2
        return 2 * (tokens**2 * 4 * self.vision_width + tokens * words * self.hidden + rows * tokens)

    def tome(self, tokens: int, kept: int) -> float:
        """What merging adds (matching), less what it saves in the encoder and the connector: negative.

        tokens: before merging, whole tiles. kept: in all, as :func:`tome.shares` deals them out.
        """
        shares = tome.shares(kept, tokens // self.cells)
        whole = self._tile([0] * self.vision_layers)
        merged = (self._tile(tome.schedule(self.cells, share, self.vision_layers)) for share in shares)
        return sum(one - whole for one in merged)

    def _tile(self, merges: list[int]) -> float:
        """A tile through the encoder's layers, matching, connector. merges: cells that each layer merges."""
        width, head = self.vision_width, self.vision_width // self.vision_heads
        cells, products = self.cells, 0.0
        for count in merges:
            rows = 4 * cells + 1
            products += rows * (4 * width**2 + 2 * rows * width)
            products += (cells // 2) * -(-cells // 2) * 4 * head if count else 0
            cells -= count
            products += (4 * cells + 1) * 2 * width * self.vision_units
        products += cells * (4 * width * self.hidden + self.hidden**2)
        return 2 * products
