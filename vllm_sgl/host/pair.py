"""Whether two models make a pair: one rendered prompt must serve both."""

from typing import Any

from vllm.config import ModelConfig
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.tokenizers import cached_tokenizer_from_config

_PROBE = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "<image>\nWhat is this?"},
    {"role": "assistant", "content": "A sign."},
    {"role": "user", "content": "What does it say? 12"},
]
#: How an image becomes tiles and a tile visual tokens; all must agree.
_TILING = (
    "image_size", "min_dynamic_patch", "max_dynamic_patch", "dynamic_image_size", "use_thumbnail",
)  # fmt: skip


def check_pair(large: ModelConfig, small: ModelConfig) -> None:
    """Refuse a pair that cannot share a rendered prompt.

    Raises:
        ValueError: naming what differs: tokenizer, chat template or image tiling.
    """
    ours, theirs = cached_tokenizer_from_config(large), cached_tokenizer_from_config(small)
    if ours.get_vocab() != theirs.get_vocab():
        different = set(ours.get_vocab().items()) ^ set(theirs.get_vocab().items())
        _refuse(
            large, small, "tokenizer", f"{len(different)} vocabulary entries, e.g. {sorted(different)[:3]}"
        )
    text = "SGL compares 2 tokenizers: <img></img> été 東京"
    if ours.encode(text) != theirs.encode(text):
        _refuse(large, small, "tokenizer", f"they encode {text!r} differently")
    if (a := _rendered(ours)) != (b := _rendered(theirs)):
        _refuse(large, small, "chat template", f"they render a conversation as {a!r} and {b!r}")
    if (a := _tiling(large)) != (b := _tiling(small)):
        different = {key: (a[key], b[key]) for key in a if a[key] != b[key]}
        _refuse(large, small, "image tiling", f"(large, small): {different}")


def _refuse(large: ModelConfig, small: ModelConfig, what: str, detail: str) -> None:
    raise ValueError(
        f"{small.model} cannot guide {large.model}: their {what} differs ({detail}). Pairs that share "
        "tokenizer, chat template and image tiling are what works now, such as InternVL2-2B and "
        "InternVL2-26B: choose another --sgl-small"
    )


def _rendered(tokenizer: Any) -> str | None:
    if not getattr(tokenizer, "chat_template", None):
        return None
    return tokenizer.apply_chat_template(_PROBE, tokenize=False, add_generation_prompt=True)


def _tiling(config: ModelConfig) -> dict[str, Any]:
    processor = MULTIMODAL_REGISTRY.create_processor(config).info.get_hf_processor()
    facts = {name: getattr(processor.image_processor, name, None) for name in _TILING}
    return {**facts, "visual tokens per tile": processor.image_seq_length}
