"""InternVL2 at its true sizes, without weights: config and tokenizer files for `load_format="dummy"`.

    python -m benchmarks.true_size 26B OUT_DIR

Shapes are those of the models' public `config.json` (https://huggingface.co/OpenGVLab/InternVL2-26B and so
on) and of their parts: InternViT-300M-448px and InternViT-6B-448px-V1-5, Qwen2-0.5B, InternLM2-1.8B and
-20B, Yi-34B, Llama-3-70B. `tests/unit/test_true_size.py` holds their parameter counts against the published
ones. The tokenizer is the small one of `tools.tiny_internvl`: all its ids lie inside the real vocabulary.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.tiny_internvl import tokenizer as tokenizers_
from tools.tiny_internvl.chat_format import chat_config, write_config


@dataclass(frozen=True)
class Vision:
    """An InternViT: `layers` are all used (`select_layer` -1)."""

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
class Decoder:
    """A dense decoder with grouped-query attention and an output layer of its own."""

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

    @property
    def model_type(self) -> str:
        # InternLM2's own config class is remote code. Its fields are Llama's, and vLLM's InternLM2
        # reads no others; which model runs is decided by the architecture.
        return "qwen2" if self.architecture == "Qwen2ForCausalLM" else "llama"

    def parameters(self) -> int:
        hidden = self.hidden_size
        head = hidden // self.num_attention_heads
        qkv = hidden + 2 * self.num_key_value_heads * head
        bias = qkv if self.model_type == "qwen2" else 0
        layer = hidden * qkv + bias + hidden**2 + 3 * hidden * self.intermediate_size + 2 * hidden
        return 2 * self.vocab_size * hidden + self.num_hidden_layers * layer + hidden

    def kv_bytes(self, tokens: int, element: int = 2) -> int:
        """Bytes of the KV cache of this many tokens."""
        head = self.hidden_size // self.num_attention_heads
        return tokens * 2 * element * self.num_hidden_layers * self.num_key_value_heads * head


@dataclass(frozen=True)
class TrueSize:
    """One model. Tiles, patches and pixel shuffle are the same for all of InternVL2."""

    name: str
    vision: Vision
    decoder: Decoder
    image_size: int = 448
    patch_size: int = 14
    max_dynamic_patch: int = 12

    @property
    def max_visual_tokens(self) -> int:
        """Visual tokens of the largest image: all tiles and the thumbnail."""
        tiles = self.max_dynamic_patch + (self.max_dynamic_patch > 1)
        return tiles * (self.image_size // self.patch_size) ** 2 // 4

    def parameters(self) -> int:
        shuffled, hidden = 4 * self.vision.hidden_size, self.decoder.hidden_size
        connector = 2 * shuffled + shuffled * hidden + hidden + hidden**2 + hidden
        vision = self.vision.parameters(self.image_size, self.patch_size)
        return vision + connector + self.decoder.parameters()


_VIT_300M = Vision(1024, 16, 4096, 24, qkv_bias=True, qk_normalization=False, norm_type="layer_norm")
_VIT_6B = Vision(3200, 25, 12800, 45, qkv_bias=False, qk_normalization=True, norm_type="rms_norm")
# Each vocabulary is the decoder's own plus InternVL's nine special tokens.
_QWEN2 = Decoder("Qwen2ForCausalLM", 151655, 896, 4864, 24, 14, 2, 32768, 1e6, rms_norm_eps=1e-6)
_INTERNLM2_2B = Decoder("InternLM2ForCausalLM", 92553, 2048, 8192, 24, 16, 8, 32768, 1e6)
_INTERNLM2_20B = Decoder("InternLM2ForCausalLM", 92553, 6144, 16384, 48, 48, 8, 32768, 1e6)
_YI_34B = Decoder("LlamaForCausalLM", 64009, 7168, 20480, 60, 56, 8, 8192, 5e6)
_LLAMA3_70B = Decoder("LlamaForCausalLM", 128265, 8192, 28672, 80, 64, 8, 8192, 5e5)

INTERNVL2 = {
    "1B": TrueSize("InternVL2-1B", _VIT_300M, _QWEN2),
    "2B": TrueSize("InternVL2-2B", _VIT_300M, _INTERNLM2_2B),
    "26B": TrueSize("InternVL2-26B", _VIT_6B, _INTERNLM2_20B),
    "40B": TrueSize("InternVL2-40B", _VIT_6B, _YI_34B),
    "76B": TrueSize("InternVL2-Llama3-76B", _VIT_6B, _LLAMA3_70B),
}


def config(size: TrueSize, dtype: str = "bfloat16") -> dict:
    """What `config.json` holds."""
    decoder = asdict(size.decoder)
    architecture = decoder.pop("architecture")
    return chat_config(
        image_size=size.image_size,
        patch_size=size.patch_size,
        max_dynamic_patch=size.max_dynamic_patch,
        dtype=dtype,
        vision=asdict(size.vision),
        decoder={"architectures": [architecture], "model_type": size.decoder.model_type, **decoder},
    )


def build(size: TrueSize, directory: Path | str, dtype: str = "bfloat16") -> Path:
    """Write a checkpoint directory without weights (created if missing) and return its path."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizers_.write(tokenizers_.train(), directory, size.decoder.max_position_embeddings)
    write_config(directory, config(size, dtype))
    return directory


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.true_size", description=__doc__)
    parser.add_argument("size", choices=INTERNVL2)
    parser.add_argument("out_dir", type=Path)
    arguments = parser.parse_args()
    size = INTERNVL2[arguments.size]
    print(f"{build(size, arguments.out_dir)}: {size.parameters() / 1e9:.2f} B parameters")


if __name__ == "__main__":
    main()
