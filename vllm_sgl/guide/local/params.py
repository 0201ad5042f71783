"""Sampling parameters of the two passes through the small model."""

from collections.abc import Sequence
from typing import Any

from vllm import SamplingParams
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind


def looking(
    params: SamplingParams,
    max_tokens: int,
    extra_args: dict[str, Any] | None = None,
    reads_cache: bool = False,
) -> SamplingParams:
    """Greedy, otherwise under the client's own rules about tokens. Stop strings are applied to the
    finished answer instead: vLLM aborts on them late, after rows that must not count.

    Args:
        reads_cache: whether the engine's prefix cache may serve the prompt.
    """
    return SamplingParams(
        temperature=0,
        max_tokens=max_tokens,
        min_tokens=min(params.min_tokens, max_tokens),
        logprobs=0,
        stop_token_ids=params.stop_token_ids,
        ignore_eos=params.ignore_eos,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        repetition_penalty=params.repetition_penalty,
        logit_bias=params.logit_bias,
        allowed_token_ids=params.allowed_token_ids,
        bad_words=params.bad_words,
        skip_special_tokens=params.skip_special_tokens,
        spaces_between_special_tokens=params.spaces_between_special_tokens,
        include_stop_str_in_output=params.include_stop_str_in_output,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_reading_prefix_cache=not reads_cache,
        extra_args=extra_args,
    )


def forcing(answer: Sequence[int], start: int, rows_alone: bool) -> SamplingParams:
    """One forward pass that gives the log-probabilities of an answer at the end of the prompt.

    Args:
        answer: its token ids. start: how many prompt tokens come before it.
        rows_alone: whether to project the answer's own rows onto the vocabulary, which runner V2 can do, and
            not every row of every request in the batch.
    """
    scored: dict[str, Any] = {"prompt_logprobs": 0}
    if rows_alone:
        ids = [[token] for token in answer]
        scored = {"prompt_logprob_token_ids": ids, "prompt_logprob_start": start - 1}
    return SamplingParams(
        temperature=0,
        max_tokens=1,
        **scored,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_reading_prefix_cache=True,
    )


def answer_logprobs(output: RequestOutput, answer: Sequence[int], start: int) -> list[float]:
    """The log-probability of each of the answer's tokens, from the output of a pass under :func:`forcing`."""
    if output.prompt_token_id_logprobs is not None:
        return [float(row[0]) for row in output.prompt_token_id_logprobs]
    rows = zip(output.prompt_logprobs[start:], answer, strict=True)
    return [row[token].logprob for row, token in rows]
