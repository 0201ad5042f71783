"""The small model's answer, cut as the client's request asks."""

from typing import Any

from vllm.outputs import CompletionOutput

from vllm_sgl.core import Answer, GuideRequest
from vllm_sgl.host.request.output import replay_until_stop


def read_answer(tokenizer: Any, request: GuideRequest, completion: CompletionOutput) -> Answer:
    """The answer in a finished output of the small engine, cut at the client's stop strings.

    Args:
        tokenizer: the small engine's.
    """
    tokens = tuple(completion.token_ids)
    logprobs = tuple(entry[token].logprob for entry, token in zip(completion.logprobs, tokens, strict=True))
    text, reason, stop = completion.text, completion.finish_reason, completion.stop_reason
    if request.params.stop:
        found = replay_until_stop(tokenizer, request.params, request.prompt["prompt_token_ids"], tokens)
        if found is not None:
            text, stop, count = found
            tokens, logprobs, reason = tokens[:count], logprobs[:count], "stop"
    finished = reason == "stop" or len(tokens) >= request.max_tokens
    return Answer(text, tokens, logprobs, finished, reason, stop)
