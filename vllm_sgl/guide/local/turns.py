"""Where the last user turn of a rendered prompt begins, by the tokens that a chat template puts before it."""

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

_ANSWER, _QUESTION = "quince", "medlar"
_PROBE = [
    {"role": "user", "content": "What is it?"},
    {"role": "assistant", "content": _ANSWER},
    {"role": "user", "content": _QUESTION},
]


class Turns:
    """
    header: tokens between an assistant's answer and the user's next words; empty where a template has no
        special token there, whose text would be told from the words around it by chance alone.
    """

    def __init__(self, header: Sequence[int] = ()) -> None:
        self.header = tuple(header)

    @classmethod
    def of(cls, tokenizer: Any) -> "Turns":
        """Of a model's chat template; without a header where it has none, or refuses a conversation."""
        if not getattr(tokenizer, "chat_template", None):
            return cls()
        try:
            text = tokenizer.apply_chat_template(_PROBE, tokenize=False, add_generation_prompt=True)
        except (TemplateError, TypeError, ValueError):
            return cls()
        _, found, behind = text.partition(_ANSWER)
        between, met, _ = behind.partition(_QUESTION)
        if not (found and met):
            return cls()
        header = tokenizer.encode(between, add_special_tokens=False)
        while header and not tokenizer.decode(header[-1:]).strip():
            header = header[:-1]  # a line's end may be one token with what follows it
        special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
        return cls(header if special & set(header) else ())

    def last(self, ids: Sequence[int], start: int) -> int:
        """One past the last header in a prompt, from position `start` on; `start` where there is none.

        Args:
            ids: of the prompt.
        """
        size = len(self.header)
        if not size:
            return start
        for at in range(len(ids) - size, start - 1, -1):
            if ids[at] == self.header[0] and tuple(ids[at : at + size]) == self.header:
                return at + size
        return start
