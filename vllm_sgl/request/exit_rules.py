"""Which sampling parameters an early exit respects. All others rule it out, those of later vLLM releases
too."""

import logging

from vllm import SamplingParams
from vllm.config import VllmConfig

from vllm_sgl.config import REQUEST_PREFIX

logger = logging.getLogger("vllm.vllm_sgl.exits")

#: The small model follows them too: :func:`vllm_sgl.guide.local.params.looking`.
FOLLOWED = frozenset(
    {
        "max_tokens", "stop", "stop_token_ids", "bad_words", "allowed_token_ids", "logit_bias",
        "presence_penalty", "frequency_penalty", "repetition_penalty", "skip_special_tokens",
        "spaces_between_special_tokens", "include_stop_str_in_output",
    }
)  # fmt: skip
#: These do not count: an exit answer is always greedy.
GREEDY = frozenset({"temperature", "top_p", "top_k", "min_p", "seed"})
#: These do not affect the answer: how it is sent, cached and copied.
SILENT = frozenset(
    {"output_kind", "stream_interval", "skip_clone", "skip_reading_prefix_cache", "flat_logprobs"}
)
#: What vLLM derives from the others.
DERIVED = frozenset(
    {
        "output_text_buffer_length", "_eos_token_id", "_all_stop_token_ids", "_bad_words_token_ids",
        "_watermarking_skipped",
    }
)  # fmt: skip
#: These have a reason of their own: :mod:`vllm_sgl.request.facts`.
NAMED = frozenset(
    {
        "n", "logprobs", "logprob_token_ids", "structured_outputs", "prompt_logprobs",
        "prompt_logprob_token_ids", "prompt_logprob_start",
    }
)  # fmt: skip
#: These force an answer past its own end. The guide stops at its own end (:func:`unforced`), and an answer
#: that ends too early is no exit (:mod:`vllm_sgl.decide.early_exit`).
FORCING = frozenset({"ignore_eos", "min_tokens"})
#: Keys of ``extra_args`` that only a wrapped guide reads; the code that wraps a guide adds its keys here.
GUIDE_KEYS: set[str] = set()
RESPECTED = FOLLOWED | GREEDY | SILENT | DERIVED | NAMED | FORCING


def other_parameters(params: SamplingParams) -> list[str]:
    """Names of the parameters that differ from their default and that an exit would not respect."""
    kind = type(params)
    default = kind()
    others = [name for name in kind.__struct_fields__ if name not in RESPECTED and name != "extra_args"]
    found = [name for name in others if getattr(params, name) != getattr(default, name)]
    # Custom logits processors and the like are told through these.
    keys = params.extra_args or {}
    theirs = [key for key in keys if not key.startswith(REQUEST_PREFIX) and key not in GUIDE_KEYS]
    return found + [f"extra_args[{key!r}]" for key in theirs]


def unforced(params: SamplingParams) -> SamplingParams:
    """The client's parameters for the guide, without those that force an answer past its end: such tokens say
    nothing about the image, cost decoding, count as attention, and spoil the confidence."""
    if not (params.ignore_eos or params.min_tokens):
        return params
    params = params.clone()
    params.ignore_eos, params.min_tokens = False, 0
    return params


def possible(config: VllmConfig) -> bool:
    """Whether exits are possible: not if a feature of the large engine changes or marks every answer.

    Logits processors that are installed as plugins are no such feature: the small engine has them, too.
    """
    features = {
        "a watermark": config.watermark_config is not None,
        "--logits-processors": bool(config.model_config.logits_processors),
        "return_sampling_mask": config.model_config.return_sampling_mask,
        "auxiliary outputs": config.aux_output_config.enabled,
    }
    found = [name for name, there in features.items() if there]
    if found:
        logger.warning("SGL: no request exits early, whatever the threshold: the large engine has %s",
                       " and ".join(found))  # fmt: skip
    return not found
