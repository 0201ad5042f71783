"""Writes a checkpoint directory in InternVL's original chat format."""

from pathlib import Path

from safetensors.torch import save_file
from tokenizers import Tokenizer

from . import tokenizer as tokenizers_
from .chat_format import DECODER_CODE, chat_config, write_config, write_json
from .decoders import DECODERS
from .slow_tokenizer import SlowTokenizer
from .spec import LARGE_QWEN2, SMALL_QWEN2, TinySpec
from .weights import random_weights

_TILING = ("image_size", "patch_size", "max_dynamic_patch")


def config(spec: TinySpec, tokenizer: Tokenizer | SlowTokenizer) -> dict:
    """What `config.json` holds."""
    kind = DECODERS[spec.decoder]
    vision = {
        "hidden_size": spec.vit_hidden,
        "intermediate_size": 2 * spec.vit_hidden,
        "norm_type": "rms_norm" if spec.vit_6b else "layer_norm",
        "num_attention_heads": spec.vit_heads,
        "num_hidden_layers": spec.vit_layers,
        "qk_normalization": spec.vit_6b,
        "qkv_bias": not spec.vit_6b,
    }
    decoder = {
        "architectures": [kind.architecture],
        "model_type": kind.model_type,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id(tokenizers_.IM_END),
        "pad_token_id": tokenizer.token_to_id(tokenizers_.PAD),
        "hidden_size": spec.hidden,
        "intermediate_size": spec.intermediate,
        "max_position_embeddings": spec.max_position_embeddings,
        "num_attention_heads": spec.heads,
        "num_hidden_layers": spec.layers,
        "num_key_value_heads": spec.kv_heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": spec.rope_theta,
        "use_cache": True,
        "vocab_size": tokenizer.get_vocab_size(),
        **kind.fields(spec),
    }
    return chat_config(
        image_size=spec.image_size,
        patch_size=spec.patch_size,
        max_dynamic_patch=spec.max_dynamic_patch,
        dtype=spec.dtype,
        vision=vision,
        decoder=decoder,
    )


def build(
    spec: TinySpec,
    directory: Path | str,
    tokenizer: Tokenizer | SlowTokenizer | None = None,
    chat_template: str | None = None,
) -> Path:
    """Write the checkpoint of `spec` into `directory` (created if missing) and return the path.

    vLLM loads it with `trust_remote_code=True`. The same arguments give the same bytes.

    Args:
        tokenizer: with InternVL's special tokens; if None InternLM2's, or the one that the others share.
        chat_template: the tokenizer's own if None.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer or (SlowTokenizer() if spec.decoder == "internlm2" else tokenizers_.train())
    length = spec.max_position_embeddings
    if isinstance(tokenizer, SlowTokenizer):
        tokenizer.write(directory, length, chat_template or tokenizer.chat_template)
    else:
        tokenizers_.write(tokenizer, directory, length, chat_template or tokenizers_.CHAT_TEMPLATE)
    write_config(
        directory, config(spec, tokenizer), *(DECODER_CODE if DECODERS[spec.decoder].remote_config else ())
    )
    write_json(
        directory / "generation_config.json",
        {
            "eos_token_id": tokenizer.token_to_id(tokenizers_.IM_END),
            "pad_token_id": tokenizer.token_to_id(tokenizers_.PAD),
        },
    )
    weights = random_weights(spec, tokenizer)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def build_pair(
    directory: Path | str,
    small: TinySpec = SMALL_QWEN2,
    large: TinySpec = LARGE_QWEN2,
    videos: bool = False,
) -> tuple[Path, Path]:
    """Write `small` and `large` below `directory`; return (small path, large path).

    Args:
        videos: whether the vocabulary has what makes videos possible; not for InternLM2's.

    Raises:
        ValueError: the two would cut the same image into different visual tokens.
    """
    for field in _TILING:
        if getattr(small, field) != getattr(large, field):
            raise ValueError(
                f"small and large model must tile alike: {field} is "
                f"{getattr(small, field)} and {getattr(large, field)}"
            )
    tokenizer = None
    if videos:
        tokenizer = tokenizers_.train(special=(*tokenizers_.SPECIAL_TOKENS, tokenizers_.VIDEO_PAD))
    first, second = (build(spec, Path(directory) / spec.name, tokenizer) for spec in (small, large))
    return first, second
