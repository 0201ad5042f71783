"""vLLM's request outputs: stop strings on finished text, and building an output of our own."""

from collections.abc import Sequence
from typing import Any

from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.detokenizer import IncrementalDetokenizer
from vllm.v1.engine.exceptions import EngineDeadError

__all__ = ["EngineDeadError", "abort_output", "exit_output", "replay_until_stop"]


def replay_until_stop(
    tokenizer: Any, params: SamplingParams, prompt_token_ids: list[int], tokens: Sequence[int]
) -> tuple[str, str, int] | None:
    """Detokenize generated tokens as vLLM would under the client's stop strings.

    Returns:
        (text, the stop string met, number of tokens up to it), or None where none is met.
    """
    request = EngineCoreRequest(
        request_id="replay", prompt_token_ids=prompt_token_ids, mm_features=None, sampling_params=params,
        pooling_params=None, arrival_time=0.0, lora_request=None, cache_salt=None, data_parallel_rank=None,
    )  # fmt: skip
    detokenizer = IncrementalDetokenizer.from_new_request(tokenizer, request)
    for count, token in enumerate(tokens, start=1):
        stop = detokenizer.update([token], stop_terminated=False)
        if stop is not None:
            return detokenizer.get_next_output_text(finished=True, delta=False), stop, count
    return None


def abort_output(request_id: str, prompt: Any) -> RequestOutput:
    """What vLLM yields for a request that was aborted by its id: no text, finished."""
    return _output(request_id, prompt, CompletionOutput(0, "", [], None, None, finish_reason="abort"))


def exit_output(request_id: str, prompt: Any, answer: Any) -> RequestOutput:
    """The small model's answer as the one finished output of a request."""
    completion = CompletionOutput(
        index=0,
        text=answer.text,
        token_ids=list(answer.token_ids),
        cumulative_logprob=None,
        logprobs=None,
        finish_reason=answer.finish_reason,
        stop_reason=answer.stop_reason,
    )
    return _output(request_id, prompt, completion)


def _output(request_id: str, prompt: Any, completion: CompletionOutput) -> RequestOutput:
    return RequestOutput(
        request_id=request_id,
        prompt=prompt.get("prompt"),
        prompt_token_ids=prompt["prompt_token_ids"],
        prompt_logprobs=None,
        outputs=[completion],
        finished=True,
        num_cached_tokens=0,
        num_cache_creation_tokens=0,
    )
