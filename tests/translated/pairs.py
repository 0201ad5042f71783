"""Tiny pairs that need two renderings of a conversation, and what is asked of them."""

from pathlib import Path
from typing import Any

from tests.support.engines import user
from tests.support.images import random_image
from tools import tiny_families, tiny_internvl
from tools.tiny_internvl import LARGE_QWEN2, SMALL_LLAMA, SMALL_QWEN2
from tools.tiny_internvl.tokenizer import CHAT_TEMPLATE, TRAINING_TEXT, train

#: After Phi-3's: other markers, no place for a system message, and users and assistants in turn.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.previtem is defined and loop.previtem['role'] == message['role'] %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '<|user|>\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<|assistant|>\\n' + message['content'] + '<|im_end|>\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)

#: The large model's own template, for a server that is given one by file: it has a place for tools.
LARGE_TEMPLATE = (
    "{% if tools %}{{ '<|im_start|>tools\\n' + tools|tojson + '<|im_end|>\\n' }}{% endif %}" + CHAT_TEMPLATE
)


def other_tokenizer(folder: Path) -> tuple[Path, Path]:
    """(small, large): other merges, other ids, another template, another decoder; tiled alike."""
    tokenizer = train(TRAINING_TEXT.upper() + TRAINING_TEXT, merges=96)
    small = tiny_internvl.build(SMALL_LLAMA, folder / "small-other-tokenizer", tokenizer, TEMPLATE)
    return small, tiny_internvl.build(LARGE_QWEN2, folder / LARGE_QWEN2.name)


def other_format(folder: Path) -> tuple[Path, Path]:
    """(small, large): transformers' format guides the chat format; their pixels are not the same."""
    small = tiny_families.build(
        tiny_families.FAMILIES["internvl_hf"], tiny_families.SMALL, folder / "small-other-format"
    )
    return small, tiny_internvl.build(LARGE_QWEN2, folder / LARGE_QWEN2.name)


def to_other_format(folder: Path) -> tuple[Path, Path]:
    """(small, large): the chat format guides transformers' format."""
    large = tiny_families.build(
        tiny_families.FAMILIES["internvl_hf"], tiny_families.LARGE, folder / "large-other-format"
    )
    return tiny_internvl.build(SMALL_QWEN2, folder / SMALL_QWEN2.name), large


BUILDERS = {"tokenizer": other_tokenizer, "format": other_format, "to format": to_other_format}

#: One turn; two turns with an image each, under a system message; an image in an early turn.
CONVERSATIONS: list[list[dict[str, Any]]] = [
    [user("Read the number on the back of the shirt.", random_image(0, 300, 200))],
    [
        {"role": "system", "content": "Answer with a single word."},
        user("What is written on the sign?", random_image(1, 112, 112)),
        {"role": "assistant", "content": "The sign says stop."},
        user("Which of the two images has more red shapes?", random_image(2, 360, 120)),
    ],
    [
        user("What time does the clock show?", random_image(3, 120, 240)),
        {"role": "assistant", "content": "Ten past two."},
        user("Is the door open or closed?"),
    ],
]
