"""Writes a checkpoint directory of a family: config, tokenizer, processor and weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

from tools.tiny_internvl import TinyShape
from tools.tiny_internvl import tokenizer as tokenizers_

from .weights import random_weights

#: Text token -> its id, as configs want it.
TokenIds = Mapping[str, int]


def _as_it_is(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: tensor}


@dataclass(frozen=True)
class TinyFamily:
    """What makes a family, for checkpoints of any shape.

    Attributes:
        special_tokens: all of them, in the order of their ids.
        chat_template: Jinja, over OpenAI's content parts.
        config: the model's config for a shape; text fields that all families share are :func:`text_config`'s.
        processor: the family's processor around a tokenizer.
        published: what a tensor of transformers' model is in published checkpoints, by names.
        named_tokens: what the processor asks the tokenizer for by name.
    """

    name: str
    model: type[PreTrainedModel]
    special_tokens: tuple[str, ...]
    chat_template: str
    config: Callable[[TinyShape, TokenIds], PreTrainedConfig]
    processor: Callable[[PreTrainedTokenizerFast], ProcessorMixin]
    published: Callable[[str, torch.Tensor], Mapping[str, torch.Tensor]] = _as_it_is
    named_tokens: Mapping[str, str] = field(default_factory=dict)


# Seeds picked for varied answers of every family: over eight questions the greedy answers run from a few to
# more than 16 tokens, with confidences from about 0.4 to 0.7 and above.
SMALL = TinyShape("small", hidden=128, layers=2, heads=4, kv_heads=2, seed=21)
LARGE = TinyShape(
    "large", hidden=192, layers=4, heads=6, kv_heads=2, intermediate=384,
    vit_hidden=96, vit_layers=3, vit_heads=3, seed=18,
)  # fmt: skip


def text_config(shape: TinyShape, tokens: TokenIds) -> dict:
    """Fields of the decoder's config that every family has."""
    return {
        "bos_token_id": None,
        "eos_token_id": tokens[tokenizers_.IM_END],
        "pad_token_id": tokens[tokenizers_.PAD],
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.max_position_embeddings,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "vocab_size": len(tokens),
    }


def build(family: TinyFamily, shape: TinyShape, directory: Path | str) -> Path:
    """Write a checkpoint into ``directory`` (created if missing) and return the path.

    The same family and shape give the same bytes.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizers_.train(special=family.special_tokens)
    tokenizers_.write(tokenizer, directory, shape.max_position_embeddings, family.chat_template)
    family.processor(
        PreTrainedTokenizerFast.from_pretrained(directory, **family.named_tokens)
    ).save_pretrained(directory)
    model = _model(family, shape, tokenizer)
    model.config.save_pretrained(directory)
    model.generation_config.save_pretrained(directory)
    weights = random_weights(model, shape, tokenizer)
    published: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        published |= family.published(name, tensor)
    save_file(published, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def _model(family: TinyFamily, shape: TinyShape, tokenizer: Tokenizer) -> PreTrainedModel:
    """The model without memory: names and shapes of its parameters, and its config as it is saved."""
    config = family.config(shape, tokenizer.get_vocab())
    config.architectures = [family.model.__name__]
    config.dtype = getattr(torch, shape.dtype)
    with torch.device("meta"):
        model = family.model(config)
    model.generation_config.eos_token_id = tokenizer.token_to_id(tokenizers_.IM_END)
    model.generation_config.pad_token_id = tokenizer.token_to_id(tokenizers_.PAD)
    return model


def build_pair(
    family: TinyFamily, directory: Path | str, small: TinyShape = SMALL, large: TinyShape = LARGE
) -> tuple[Path, Path]:
    """Write both below ``directory``; return (small path, large path)."""
    named = (replace(shape, name=f"{shape.name}-{family.name}") for shape in (small, large))
    first, second = (build(family, shape, Path(directory) / shape.name) for shape in named)
    return first, second
