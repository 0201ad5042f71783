"""InternVL's chat format: an InternViT, a connector of two layers, a dense decoder."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tools.tiny_internvl import tokenizer as tokenizers_
from tools.tiny_internvl.chat_format import chat_config, write_config

from .checkpoint import TrueSize

#: Architecture of a decoder -> ``model_type`` of the config class that reads its fields. InternLM2's own
#: class is remote code. Its fields are Llama's, and vLLM's InternLM2 reads no others; which model runs is
#: decided by the architecture.
_MODEL_TYPES = {
    "InternLM2ForCausalLM": "llama",
    "LlamaForCausalLM": "llama",
    "Phi3ForCausalLM": "phi3",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}


@dataclass(frozen=True)
class InternViT:
    """`num_hidden_layers` are all used (`select_layer` -1)."""

    hidden_size: int
    num_attention_heads: int
    intermediate_size: int
    num_hidden_layers: int
    qkv_bias: bool
    qk_normalization: bool
    norm_type: str

    def parameters(self, image_size: int, patch_size: int) -> int:
        hidden, wide = self.hidden_size, self.intermediate_size
        patches = (image_size // patch_size) ** 2
        embeddings = hidden + 3 * patch_size**2 * hidden + hidden + (patches + 1) * hidden
        attention = 4 * hidden**2 + hidden + 3 * hidden * self.qkv_bias + 2 * hidden * self.qk_normalization
        mlp = 2 * hidden * wide + wide + hidden
        norms = 2 * hidden * (2 if self.norm_type == "layer_norm" else 1)
        return embeddings + self.num_hidden_layers * (attention + mlp + norms + 2 * hidden)


@dataclass(frozen=True)
class DenseDecoder:
    """Grouped-query attention, a gated MLP, and an output layer of its own.

    head_size: where it is not hidden_size / num_attention_heads. more: further fields of the config.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    rope_theta: float
    rms_norm_eps: float = 1e-5
    head_size: int | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def model_type(self) -> str:
        return _MODEL_TYPES[self.architecture]

    @property
    def _head(self) -> int:
        return self.head_size or self.hidden_size // self.num_attention_heads

    def config(self) -> dict[str, Any]:
        fields = asdict(self)
        del fields["more"]
        own_head = fields.pop("head_size")
        return {
            "architectures": [fields.pop("architecture")],
            "model_type": self.model_type,
            **fields,
            **({"head_dim": own_head} if own_head else {}),
            **self.more,
        }

    def parameters(self) -> int:
        hidden, head = self.hidden_size, self._head
        queries = self.num_attention_heads * head
        qkv = queries + 2 * self.num_key_value_heads * head
        bias = qkv if self.model_type == "qwen2" else 0
        norms = 2 * hidden + (2 * head if self.model_type == "qwen3" else 0)
        layer = hidden * qkv + bias + queries * hidden + 3 * hidden * self.intermediate_size + norms
        return 2 * self.vocab_size * hidden + self.num_hidden_layers * layer + hidden

    def kv_bytes(self, tokens: int, element: int = 2) -> int:
        """Bytes of the KV cache of this many tokens."""
        return tokens * 2 * element * self.num_hidden_layers * self.num_key_value_heads * self._head


@dataclass(frozen=True)
class InternVLSize(TrueSize):
    """Tiles, patches and pixel shuffle are the same from InternVL2 to 3.5."""

    name: str
    vision: InternViT
    decoder: DenseDecoder
    billions: float
    image_size: int = 448
    patch_size: int = 14
    max_dynamic_patch: int = 12

    @property
    def repository(self) -> str:
        return f"OpenGVLab/{self.name}"

    @property
    def max_visual_tokens(self) -> int:
        """Of all tiles and the thumbnail."""
        tiles = self.max_dynamic_patch + (self.max_dynamic_patch > 1)
        return tiles * (self.image_size // self.patch_size) ** 2 // 4

    def parameters(self) -> int:
        shuffled, hidden = 4 * self.vision.hidden_size, self.decoder.hidden_size
        connector = 2 * shuffled + shuffled * hidden + hidden + hidden**2 + hidden
        vision = self.vision.parameters(self.image_size, self.patch_size)
        return vision + connector + self.decoder.parameters()

    def config(self, dtype: str) -> dict[str, Any]:
        return chat_config(
            image_size=self.image_size,
            patch_size=self.patch_size,
            max_dynamic_patch=self.max_dynamic_patch,
            dtype=dtype,
            vision=asdict(self.vision),
            decoder=self.decoder.config(),
        )

    def write(self, directory: Path, dtype: str) -> None:
        tokenizers_.write(tokenizers_.train(), directory, self.decoder.max_position_embeddings)
        write_config(directory, self.config(dtype))
