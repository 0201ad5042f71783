"""Sampling parameters of the two passes through the small model."""

from typing import Any

from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind


def looking(
    params: SamplingParams, max_tokens: int, extra_args: dict[str, Any] | None = None
) -> SamplingParams:
    """Greedy, otherwise under the client's own rules about tokens. Stop strings are applied to the
    finished answer instead: vLLM aborts on them late, after rows that must not count."""
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
        skip_reading_prefix_cache=True,
        extra_args=extra_args,
    )


def forcing() -> SamplingParams:
    """One forward pass that gives the log-probability of every prompt token."""
    return SamplingParams(
        temperature=0,
        max_tokens=1,
        prompt_logprobs=0,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_reading_prefix_cache=True,
    )
