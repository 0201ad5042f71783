"""The two parts of an InternVL checkpoint that `widen.py` widens, as its chat format stores them."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]


#: Tiles of a large image, thumbnail included: how far a token's attention reaches on average follows from it.
_TILES = 13


def _patches(config: Config) -> int:
    """Of one tile."""
    return (config["vision_config"]["image_size"] // config["vision_config"]["patch_size"]) ** 2


def _tokens(config: Config) -> int:
    """Visual tokens of one tile."""
    return int(_patches(config) * config["downsample_ratio"] ** 2)


def _vision_layer(config: Config, units: int) -> float:
    width = config["vision_config"]["hidden_size"]
    rows = _patches(config) + 1  # the class token
    return 2 * rows * (4 * width**2 + 2 * rows * width + 2 * width * units)


def _vision_ends(config: Config) -> float:
    """Patch embedding and connector."""
    width, hidden = config["vision_config"]["hidden_size"], config["llm_config"]["hidden_size"]
    embedding = _patches(config) * 3 * config["vision_config"]["patch_size"] ** 2 * width
    shuffled = width / config["downsample_ratio"] ** 2
    return 2 * (embedding + _tokens(config) * (shuffled * hidden + hidden**2))


def _decoder_layer(config: Config, units: int) -> float:
    decoder, tokens = config["llm_config"], _tokens(config)
    hidden, heads = decoder["hidden_size"], decoder["num_attention_heads"]
    key_values = 2 * decoder["num_key_value_heads"] * (hidden // heads)
    attention = 2 * hidden * (_TILES * tokens + 1) / 2  # causal, so half of the keys on average
    return 2 * tokens * (hidden * (2 * hidden + key_values) + attention + 3 * hidden * units)


@dataclass(frozen=True)
class Part:
    """section: of config.json. root: of a layer's tensors. inputs: projections whose rows are MLP units.
    outputs: projections that write to the residual stream, of attention and of the MLP. layer: FLOPs that a
    layer of so many MLP units spends on a tile of a large image, two per multiplication in a matrix product.
    ends: FLOPs before and behind the layers."""

    name: str
    section: str
    root: str
    inputs: tuple[str, ...]
    outputs: tuple[str, str]
    layer: Callable[[Config, int], float]
    ends: Callable[[Config], float] = lambda config: 0.0

    def layers(self, config: Config) -> int:
        return config[self.section]["num_hidden_layers"]

    def units(self, config: Config) -> int:
        """MLP units of a layer."""
        return config[self.section]["intermediate_size"]

    def width(self, config: Config) -> int:
        """Of the residual stream."""
        return config[self.section]["hidden_size"]

    def flops(self, config: Config) -> float:
        """Of the whole part, per tile of a large image; logits and the question are left out."""
        return self.ends(config) + self.layers(config) * self.layer(config, self.units(config))

    def resized(self, config: Config, layers: int, units: int) -> dict[str, Any]:
        """The config of a model with so many layers and MLP units."""
        changed = deepcopy(dict(config))
        changed[self.section] |= {"num_hidden_layers": layers, "intermediate_size": units}
        return changed


VISION = Part(
    "vision", "vision_config", "vision_model.encoder.layers.{}.", ("mlp.fc1",), ("attn.proj", "mlp.fc2"),
    _vision_layer, _vision_ends,
)  # fmt: skip
DECODER = Part(
    "decoder", "llm_config", "language_model.model.layers.{}.", ("mlp.gate_proj", "mlp.up_proj"),
    ("self_attn.o_proj", "mlp.down_proj"), _decoder_layer,
)  # fmt: skip
