"""What a tiny vision-language model looks like: sizes, tiling and the scale of its random weights."""

from dataclasses import KW_ONLY, dataclass
from typing import Literal


@dataclass(frozen=True)
class TinyShape:
    """Sizes and temperament of one checkpoint, of whatever family.

    The last six fields shape the random weights. An untrained model with ordinary initialisation
    has nearly uniform attention and a nearly uniform next-token distribution, which would let a
    wrong importance score or a wrong mask pass a test unseen.
    """

    name: str
    _: KW_ONLY
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int = 32
    intermediate: int = 256
    vit_hidden: int = 64
    vit_layers: int = 2
    vit_heads: int = 2
    max_position_embeddings: int = 2048
    seed: int = 0
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention_scale: float = 2.0
    """Standard deviation of each query and key element; attention logits have its square."""
    shared_direction: float = 0.5
    """Share of a text embedding that all text tokens have in common, [0, 1]. Query rows then agree
    in part on which visual tokens matter, so importance summed over rows stays uneven."""
    residual_scale: float = 1.5
    """How much of the residual stream every layer rewrites."""
    visual_scale: float = 1.0
    """Standard deviation of a visual token's elements; text embeddings have 1."""
    logit_scale: float = 4.0
    """Standard deviation of the next-token logits: larger means more confident answers."""
    eos_scale: float = 2.0
    """Length of the end token's output row relative to other rows: larger means shorter answers."""

    def __post_init__(self) -> None:
        # vLLM's Qwen2 derives the head size from these two, so no other value can be honoured.
        if self.heads * self.head_dim != self.hidden:
            raise ValueError(
                f"{self.name}: hidden ({self.hidden}) must equal heads * head_dim "
                f"({self.heads} * {self.head_dim})"
            )
        if self.heads % self.kv_heads:
            raise ValueError(
                f"{self.name}: heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})"
            )


@dataclass(frozen=True)
class TinySpec(TinyShape):
    """An InternVL in chat format: its decoder, and how it tiles.

    original_context: of a Phi-3, the context up to which it has its short position factors.
    vit_6b: the larger of InternVL's vision encoders: norms of queries and keys, RMS norms, no biases.
    """

    decoder: Literal["internlm2", "llama", "phi3", "qwen2", "qwen3", "qwen3_moe"]
    _: KW_ONLY
    rope_theta: float = 1e4
    original_context: int = 1024
    vit_6b: bool = False
    image_size: int = 112
    patch_size: int = 14
    max_dynamic_patch: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size % (2 * self.patch_size):
            raise ValueError(
                f"{self.name}: image_size ({self.image_size}) must be a multiple of twice the "
                f"patch_size ({self.patch_size}), because four patches make one visual token"
            )

    @property
    def tokens_per_tile(self) -> int:
        """Visual tokens of one tile, after the 2 x 2 pixel shuffle."""
        return (self.image_size // self.patch_size) ** 2 // 4

    @property
    def max_visual_tokens(self) -> int:
        """Visual tokens of the largest image: all tiles and the thumbnail."""
        tiles = self.max_dynamic_patch + (self.max_dynamic_patch > 1)
        return tiles * self.tokens_per_tile


# Seeds picked for varied answers: over 20 questions the greedy answers of each preset run from 1-2
# to more than 20 tokens, with confidences from about 0.3 to 0.6 and above.
SMALL_QWEN2 = TinySpec("small-qwen2", "qwen2", hidden=128, layers=2, heads=4, kv_heads=2, seed=1)
LARGE_QWEN2 = TinySpec(
    "large-qwen2",
    "qwen2",
    hidden=192,
    layers=4,
    heads=6,
    kv_heads=2,
    intermediate=384,
    vit_hidden=96,
    vit_layers=3,
    vit_heads=3,
    seed=14,
)
SMALL_LLAMA = TinySpec("small-llama", "llama", hidden=128, layers=3, heads=4, kv_heads=4, seed=15)
LARGE_LLAMA = TinySpec(
    "large-llama",
    "llama",
    hidden=256,
    layers=4,
    heads=4,
    kv_heads=4,
    head_dim=64,
    intermediate=384,
    vit_hidden=96,
    vit_layers=3,
    vit_heads=3,
    seed=16,
)


# One pair for each of the published decoders beside those, the large ones behind the larger vision encoder.
# Heads in groups as in Yi-34B (7) and Llama-3-70B (8).
_SMALL = {"hidden": 128, "layers": 2, "heads": 4, "kv_heads": 2}
_LARGE = {
    "hidden": 192, "layers": 4, "heads": 6, "kv_heads": 2, "intermediate": 384,
    "vit_hidden": 96, "vit_layers": 3, "vit_heads": 3, "vit_6b": True,
}  # fmt: skip
_GROUPS_OF_7 = {"hidden": 224, "heads": 7, "kv_heads": 1}
_GROUPS_OF_8 = {"hidden": 256, "heads": 8, "kv_heads": 1}
DECODER_PAIRS = {
    "internlm2": (
        TinySpec("small-internlm2", "internlm2", **_SMALL, seed=31),
        TinySpec("large-internlm2", "internlm2", **_LARGE, seed=32),
    ),
    "phi3": (
        TinySpec("small-phi3", "phi3", **_SMALL, seed=33),
        TinySpec("large-phi3", "phi3", **_LARGE, seed=34),
    ),
    "qwen3": (
        TinySpec("small-qwen3", "qwen3", **_SMALL, seed=35),
        TinySpec("large-qwen3", "qwen3", **_LARGE, seed=36),
    ),
    "qwen3_moe": (
        TinySpec("small-qwen3", "qwen3", **_SMALL, seed=35),
        TinySpec("large-qwen3_moe", "qwen3_moe", **_LARGE, seed=36),
    ),
    "yi": (
        TinySpec("small-yi", "llama", **_SMALL | _GROUPS_OF_7, rope_theta=5e6, seed=37),
        TinySpec("large-yi", "llama", **_LARGE | _GROUPS_OF_7, rope_theta=5e6, seed=38),
    ),
    "llama3": (
        TinySpec("small-llama3", "llama", **_SMALL | _GROUPS_OF_8, rope_theta=5e5, seed=39),
        TinySpec("large-llama3", "llama", **_LARGE | _GROUPS_OF_8, rope_theta=5e5, seed=40),
    ),
}
