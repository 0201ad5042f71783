"""vLLM's reasoning parsers: whether an answer would be the content of a response.

A parser takes what has no end of thinking in it for thinking. An answer of a model that does not think would
be in ``reasoning`` then, and ``content`` would be null.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vllm.config import VllmConfig
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser import ParserManager

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = (
    "vllm.config.structured_outputs:StructuredOutputsConfig.reasoning_parser",
    "vllm.parser.parser_manager:ParserManager.get_parser"
    "(tool_parser_name, reasoning_parser_name, enable_auto_tools, model_name)",
    "vllm.parser.abstract_parser:Parser.set_prompt_token_ids(prompt_token_ids)",
    "vllm.parser.abstract_parser:Parser.parse"
    "(model_output, request, enable_auto_tools, model_output_token_ids)",
    "vllm.parser.abstract_parser:Parser.parse_delta"
    "(delta_text, delta_token_ids, request, prompt_token_ids, finished)",
    "vllm.v1.engine.async_llm:AsyncLLM.generate(reasoning_parser_kwargs)",
)

#: A request's engine argument that is there if vLLM's server reads the answer with a reasoning parser.
KWARGS = "reasoning_parser_kwargs"

logger = logging.getLogger("vllm.vllm_sgl.exits")


def content_test(
    config: VllmConfig, tokenizer: Any, prompt_token_ids: Sequence[int], kwargs: Mapping[str, Any]
) -> Callable[[str, Sequence[int]], bool] | None:
    """Whether a finished answer's text is content, in a whole response and in a stream, which differ.

    Args:
        config, tokenizer: of the model that the server answers for.
        kwargs: of the request, as the engine was given them.

    Returns:
        a function of a text and its token ids; None where no reasoning parser reads the answer.
    """
    name, about = config.structured_outputs_config.reasoning_parser, kwargs.get(KWARGS)
    if not name or about is None:
        return None
    prompt = list(prompt_token_ids)

    def is_content(text: str, token_ids: Sequence[int]) -> bool:
        request, ids = ChatCompletionRequest(messages=[], model=""), list(token_ids)
        try:
            parser = ParserManager.get_parser(
                reasoning_parser_name=name, model_name=config.model_config.model
            )
            assert parser is not None, "a name of a parser that vLLM's server took"
            whole, stream = (
                parser(tokenizer, None, model_config=config.model_config, **about) for _ in range(2)
            )
            whole.set_prompt_token_ids(prompt)
            _, content, _ = whole.parse(text, request, model_output_token_ids=ids)
            delta = stream.parse_delta(text, ids, request, prompt_token_ids=prompt, finished=True)
        except Exception as error:  # parsers are many, and some are a user's
            logger.warning("SGL: the reasoning parser %s cannot read an answer: %r", name, error)
            return False
        return bool(content and delta and delta.content)

    return is_content
