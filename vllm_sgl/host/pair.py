"""Whether two models make a pair: one rendered prompt must serve both."""

from collections.abc import Mapping
from typing import Any

from vllm.config import ModelConfig
from vllm.tokenizers import cached_tokenizer_from_config

_PROBE = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "<image>\nWhat is this?"},
    {"role": "assistant", "content": "A sign."},
    {"role": "user", "content": "What does it say? 12"},
]


def check_pair(
    large: ModelConfig,
    small: ModelConfig,
    large_vision: Mapping[str, object],
    small_vision: Mapping[str, object],
) -> None:
    """Refuse a pair that cannot share a rendered prompt.

    Args:
        large_vision, small_vision: what each model's family says about its vision input.

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
    if large_vision != small_vision:
        names = {**large_vision, **small_vision}
        pairs = {name: (large_vision.get(name), small_vision.get(name)) for name in names}
        unequal = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        _refuse(large, small, "image tiling", f"(large, small): {unequal}")


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
