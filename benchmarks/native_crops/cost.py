"""What the prefill of a model that encodes images as a whole costs, in floating-point operations.

    V(e) + L(k) = vision(e N) + decoder(k N + text)

for an image of N visual tokens of which the share e is encoded and k reaches the decoder. The vision encoder
has full attention, so a part of the image costs less than its share. Only matrix products count, two
operations per multiplication. The sign reader's images are far smaller than a real model's; what it
does to a share of the image is costed as if the image had N = 1024 visual tokens (896 x 896 pixels in
Qwen2-VL). The guide costs the same under every setting that has one and is left out.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.true_size.transformers_sizes import CONFIGS

#: Visual tokens of the images that are costed, and tokens of text beside them.
IMAGE, TEXT = 1024, 64


@dataclass(frozen=True)
class NativeCost:
    """patch: FLOPs of a patch through the vision encoder, without attention. look: of one patch looking at
    one. merge: of a visual token through the connector. token, pair: of a token through the decoder without
    attention, and of one looking at one. patches: of a visual token."""

    patch: float
    look: float
    merge: float
    token: float
    pair: float
    patches: int = 4

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "NativeCost":
        """From the fields of a Qwen2-VL's ``config.json``."""
        vision = config["vision_config"]
        wide, depth = vision["embed_dim"], vision["depth"]
        patches = vision["spatial_merge_size"] ** 2
        embedding = 3 * vision["temporal_patch_size"] * vision["patch_size"] ** 2 * wide
        merged = patches * wide
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        layers, size = config["num_hidden_layers"], hidden // heads
        projections = hidden * size * (2 * heads + 2 * config["num_key_value_heads"])
        return cls(
            patch=2 * (embedding + depth * (4 + 2 * vision["mlp_ratio"]) * wide**2),
            look=2 * depth * 2 * wide,
            merge=2 * merged * (merged + hidden),
            token=2 * layers * (projections + 3 * hidden * config["intermediate_size"]),
            pair=2 * layers * 2 * hidden,
            patches=patches,
        )

    def vision(self, tokens: float) -> float:
        """Of one image or crop of so many visual tokens."""
        patches = self.patches * tokens
        return self.patch * patches + self.look * patches**2 + self.merge * tokens

    def decoder(self, tokens: float) -> float:
        """A causal pass over a prompt; the one row of logits is left out."""
        return self.token * tokens + self.pair * tokens * (tokens + 1) / 2

    def prefill(self, whole: Sequence[int], encoded: Sequence[int], kept: int) -> float:
        """Of a request with images, relative to everything encoded and kept.

        Args:
            whole: per image its visual tokens. encoded: those that are encoded. kept: of all together.
        """
        scale = IMAGE / sum(whole)
        cost = sum(self.vision(scale * tokens) for tokens in encoded) + self.decoder(scale * kept + TEXT)
        return cost / self._plain(whole)

    def vision_share(self) -> float:
        """The vision encoder's share of the prefill of an unpruned image."""
        return self.vision(IMAGE) / self._plain([1])

    def _plain(self, whole: Sequence[int]) -> float:
        scale = IMAGE / sum(whole)
        return sum(self.vision(scale * tokens) for tokens in whole) + self.decoder(IMAGE + TEXT)


def _config(name: str) -> dict[str, Any]:
    return json.loads((CONFIGS / "qwen2_vl" / f"{name}.json").read_text())


#: What Qwen/Qwen2-VL-7B-Instruct's config.json has otherwise than the 72B's: the decoder, not the encoder.
_SEVEN = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
}
#: By model; the first is the one that settings are compared at equal cost in.
MODELS = {
    "Qwen2-VL-7B": NativeCost.of({**_config("Qwen2-VL-72B"), **_SEVEN}),
    "Qwen2-VL-2B": NativeCost.of(_config("Qwen2-VL-2B")),
    "Qwen2-VL-72B": NativeCost.of(_config("Qwen2-VL-72B")),
}
