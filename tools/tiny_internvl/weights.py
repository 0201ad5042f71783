"""Random weights under the names of InternVL's original chat format."""

import zlib
from collections.abc import Iterator

import torch
from tokenizers import Tokenizer

from .decoders import DECODERS, EXPERTS, published
from .slow_tokenizer import SlowTokenizer
from .spec import TinyShape, TinySpec
from .tokenizer import IM_END, plain_text_ids

Named = Iterator[tuple[str, torch.Tensor]]


class Source:
    """Draws each tensor from its own generator, so a tensor depends on its name and the seed only.

    Adding a layer or a field then leaves every other tensor as it was.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def normal(self, name: str, *shape: int, std: float) -> torch.Tensor:
        key = zlib.crc32(f"{self.seed}/{name}".encode())
        return torch.randn(shape, generator=torch.Generator().manual_seed(key)) * std

    def linear(self, name: str, out: int, inp: int, *, gain: float = 1.0, bias: bool = True) -> Named:
        """A layer whose outputs have standard deviation `gain` for inputs of 1."""
        yield f"{name}.weight", self.normal(f"{name}.weight", out, inp, std=gain * inp**-0.5)
        if bias:
            yield f"{name}.bias", self.normal(f"{name}.bias", out, std=0.1 * gain)

    def norm(self, name: str, size: int, *, bias: bool) -> Named:
        # Not exactly one: a norm weight that is dropped or applied twice must change the output.
        yield f"{name}.weight", 1 + self.normal(f"{name}.weight", size, std=0.1)
        if bias:
            yield f"{name}.bias", self.normal(f"{name}.bias", size, std=0.1)


def _vision(spec: TinySpec, source: Source) -> Named:
    width, patch = spec.vit_hidden, spec.patch_size
    root = "vision_model.embeddings"
    name = f"{root}.class_embedding"
    yield name, source.normal(name, 1, 1, width, std=1.0)
    name = f"{root}.patch_embedding"
    fan_in = 3 * patch * patch
    # Louder than the position embedding, so that visual tokens tell images apart.
    yield f"{name}.weight", source.normal(name, width, 3, patch, patch, std=2 * fan_in**-0.5)
    yield f"{name}.bias", source.normal(f"{name}.bias", width, std=0.1)
    positions = (spec.image_size // patch) ** 2 + 1
    name = f"{root}.position_embedding"
    yield name, source.normal(name, 1, positions, width, std=0.4)
    for index in range(spec.vit_layers):
        layer = f"vision_model.encoder.layers.{index}"
        yield from source.norm(f"{layer}.norm1", width, bias=not spec.vit_6b)
        yield from source.linear(f"{layer}.attn.qkv", 3 * width, width, gain=1.2, bias=not spec.vit_6b)
        if spec.vit_6b:
            yield from source.norm(f"{layer}.attn.q_norm", width, bias=False)
            yield from source.norm(f"{layer}.attn.k_norm", width, bias=False)
        yield from source.linear(f"{layer}.attn.proj", width, width)
        yield from source.norm(f"{layer}.norm2", width, bias=not spec.vit_6b)
        yield from source.linear(f"{layer}.mlp.fc1", 2 * width, width)
        yield from source.linear(f"{layer}.mlp.fc2", width, 2 * width)
        for scale in ("ls1", "ls2"):
            yield f"{layer}.{scale}", 0.5 + source.normal(f"{layer}.{scale}", width, std=0.05)


def _connector(spec: TinySpec, source: Source) -> Named:
    shuffled = 4 * spec.vit_hidden
    yield from source.norm("mlp1.0", shuffled, bias=True)
    yield from source.linear("mlp1.1", spec.hidden, shuffled, gain=2.0)
    yield from source.linear("mlp1.3", spec.hidden, spec.hidden, gain=spec.visual_scale / 1.3)


def _decoder(spec: TinySpec, source: Source, vocabulary: int) -> Named:
    hidden, kv = spec.hidden, spec.kv_heads * spec.head_dim
    kind = DECODERS[spec.decoder]
    qkv_bias = kind.qkv_bias
    name = "language_model.model.embed_tokens.weight"
    yield name, text_embeddings(name, spec, source, vocabulary)
    for index in range(spec.layers):
        layer = f"language_model.model.layers.{index}"
        attention, mlp, residual = f"{layer}.self_attn", f"{layer}.mlp", spec.residual_scale
        sharp = 1.0 if kind.qk_norm else spec.attention_scale
        yield from source.norm(f"{layer}.input_layernorm", hidden, bias=False)
        yield from source.linear(f"{attention}.q_proj", hidden, hidden, gain=sharp, bias=qkv_bias)
        yield from source.linear(f"{attention}.k_proj", kv, hidden, gain=sharp, bias=qkv_bias)
        if kind.qk_norm:
            for part in ("q_norm", "k_norm"):
                for name, weight in source.norm(f"{attention}.{part}", spec.head_dim, bias=False):
                    yield name, spec.attention_scale * weight
        yield from source.linear(f"{attention}.v_proj", kv, hidden, bias=qkv_bias)
        yield from source.linear(f"{attention}.o_proj", hidden, hidden, gain=residual, bias=False)
        yield from source.norm(f"{layer}.post_attention_layernorm", hidden, bias=False)
        if spec.decoder == "qwen3_moe":
            wide = spec.intermediate // 2
            yield from source.linear(f"{mlp}.gate", EXPERTS, hidden, gain=3.0, bias=False)
            for expert in range(EXPERTS):
                one = f"{mlp}.experts.{expert}"
                for part in ("gate_proj", "up_proj"):
                    yield from source.linear(f"{one}.{part}", wide, hidden, gain=1.5, bias=False)
                yield from source.linear(f"{one}.down_proj", hidden, wide, gain=residual / 1.5, bias=False)
            continue
        for part in ("gate_proj", "up_proj"):
            yield from source.linear(f"{mlp}.{part}", spec.intermediate, hidden, gain=1.5, bias=False)
        yield from source.linear(
            f"{mlp}.down_proj", hidden, spec.intermediate, gain=residual / 1.5, bias=False
        )
    yield from source.norm("language_model.model.norm", hidden, bias=False)


def text_embeddings(name: str, spec: TinyShape, source: Source, vocabulary: int) -> torch.Tensor:
    """The input embedding [vocabulary, hidden]."""
    share = spec.shared_direction
    own = source.normal(name, vocabulary, spec.hidden, std=(1 - share**2) ** 0.5)
    return own + source.normal("shared_direction", 1, spec.hidden, std=share)


def output_rows(
    name: str, spec: TinyShape, source: Source, tokenizer: Tokenizer | SlowTokenizer
) -> torch.Tensor:
    """The output embedding [vocabulary, hidden]: printable text likely, the end token by choice."""
    size = tokenizer.get_vocab_size()
    relative = torch.full((size, 1), 0.1)
    plain = plain_text_ids(tokenizer) if isinstance(tokenizer, Tokenizer) else tokenizer.plain_text_ids()
    relative[plain] = 1.0
    relative[tokenizer.token_to_id(IM_END)] = spec.eos_scale
    rows = source.normal(name, size, spec.hidden, std=spec.logit_scale)
    return rows * spec.hidden**-0.5 * relative


def random_weights(spec: TinySpec, tokenizer: Tokenizer | SlowTokenizer) -> dict[str, torch.Tensor]:
    """All tensors of the checkpoint, in `spec.dtype`."""
    source = Source(spec.seed)
    weights = dict(_vision(spec, source))
    weights |= dict(_connector(spec, source))
    decoder = dict(_decoder(spec, source, tokenizer.get_vocab_size()))
    name = "language_model.lm_head.weight"
    decoder[name] = output_rows(name, spec, source, tokenizer)
    weights |= published(decoder, spec)
    dtype = getattr(torch, spec.dtype)
    return {name: tensor.to(dtype).contiguous() for name, tensor in weights.items()}
