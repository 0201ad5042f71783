"""vLLM's chat templates: where the last user turn of a conversation begins, in the tokens of one model.

Symptom without it: an engine client sees token ids alone, and not which of them are the new question. What a
template writes between an answer and the next question is found by rendering a made-up conversation once for
each template; no class is changed. Remove when vLLM says where the turns of an engine input begin.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jinja2 import TemplateError
from vllm.renderers import ChatParams

from vllm_sgl.host.render.conversation import conversation_of

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = (
    "vllm.renderers.base:BaseRenderer.render_messages(messages, params)",
    "vllm.renderers.base:BaseRenderer.get_tokenizer",
)

logger = logging.getLogger("vllm.vllm_sgl.turns")

_ANSWER, _QUESTION = "quince", "medlar"
_CONVERSATION = [
    {"role": "user", "content": "Which?"},
    {"role": "assistant", "content": _ANSWER},
    {"role": "user", "content": _QUESTION},
]
#: Of a template's parameters, those that write something into the prompt of which turns know nothing.
_CONTENT = ("tools", "documents")
#: Templates with their parameters whose turns are known: a client may send others with every request.
_MOST = 64


class Turns:
    """Finds turns by one model's renderer, whose prompts carry their conversations."""

    def __init__(self, renderer: Any) -> None:
        self._renderer = renderer
        self._openings: dict[str, list[list[int]]] = {}

    def last_start(self, prompt: Mapping[str, Any]) -> int | None:
        """The first token behind the last user turn's header; None for the first turn, and where the
        template does not show it."""
        conversation = conversation_of(prompt)
        if conversation is None:
            return None
        ids = prompt["prompt_token_ids"]
        for opening in self._opening(conversation.params):
            for end in range(len(ids), len(opening) - 1, -1):
                if ids[end - len(opening) : end] == opening:
                    return end
        return None

    def _opening(self, params: ChatParams) -> list[list[int]]:
        """What may stand between an answer and the next question, in tokens."""
        kwargs = {name: value for name, value in params.chat_template_kwargs.items() if name not in _CONTENT}
        key = repr((params.chat_template, sorted(kwargs.items(), key=lambda pair: pair[0])))
        if key not in self._openings:
            if len(self._openings) >= _MOST:
                del self._openings[next(iter(self._openings))]
            self._openings[key] = self._rendered(replace(params, chat_template_kwargs=kwargs))
        return self._openings[key]

    def _rendered(self, params: ChatParams) -> list[list[int]]:
        tokenizer = self._renderer.get_tokenizer()
        try:
            _, prompt = self._renderer.render_messages(_CONVERSATION, params)
            text = prompt.get("prompt") or tokenizer.decode(prompt["prompt_token_ids"])
            between = text.split(_ANSWER, 1)[1].split(_QUESTION, 1)[0]
        except (TemplateError, ValueError, TypeError, KeyError, IndexError) as error:
            logger.warning("SGL: the turns of a chat template cannot be told apart (%s)", error)
            return []
        # A blank in front of a word is mostly a part of the word's token.
        texts = dict.fromkeys((between, between.rstrip(" ")))
        return [tokens for text in texts if (tokens := tokenizer.encode(text, add_special_tokens=False))]
