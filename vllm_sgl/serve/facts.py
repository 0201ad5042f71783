"""Reading off an engine request what the decision needs to know."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from vllm import SamplingParams

from vllm_sgl.decision import Facts, Reason
from vllm_sgl.prune.rewrite import visual_counts
from vllm_sgl.serve.context import RequestContext


def read(
    prompt: Any, params: SamplingParams, context: RequestContext, lora: Any, max_model_len: int
) -> Facts:
    """Facts of one request.

    Args:
        prompt: what ``AsyncLLM.generate`` was given.
        max_model_len: the large model's context. Prompt and answer must fit it unpruned, because kept
            tokens keep their positions; a prompt that does not is left to vLLM to refuse.
    """
    reason = _why_not_ours(prompt)
    if reason not in (None, Reason.IMAGE_EMBEDDINGS) or prompt["type"] != "multimodal":
        return Facts(bypass=_first_asked(context, params) or reason)
    tokens = len(prompt["prompt_token_ids"])
    room = max_model_len - tokens
    if room < 1:
        return Facts(bypass=Reason.TOO_LONG)
    return Facts(
        visual_tokens=visual_counts(prompt),
        prompt_tokens=tokens,
        max_tokens=room if params.max_tokens is None else min(params.max_tokens, room),
        bypass=_first_asked(context, params) or reason,
        no_exit=_why_no_exit(params, context, lora),
    )


def _first_asked(context: RequestContext, params: SamplingParams) -> str | None:
    if context.beam_search:
        return Reason.BEAM_SEARCH
    if params.prompt_logprobs is not None or params.prompt_logprob_token_ids is not None:
        return Reason.PROMPT_LOGPROBS
    return None


def _why_not_ours(prompt: Any) -> str | None:
    if isinstance(prompt, AsyncGenerator) or not isinstance(prompt, Mapping) or "type" not in prompt:
        return Reason.UNRENDERED_PROMPT
    if prompt["type"] == "token":
        return Reason.NO_IMAGE
    if prompt["type"] != "multimodal":
        return Reason.IMAGE_EMBEDDINGS if prompt["type"] == "embeds" else Reason.UNSUPPORTED_MODALITY
    modalities = {name for name, places in prompt["mm_placeholders"].items() if places}
    if not modalities:
        return Reason.NO_IMAGE
    if modalities != {"image"}:
        return Reason.UNSUPPORTED_MODALITY
    items = prompt["mm_kwargs"]["image"]
    if any(item is None or "pixel_values_flat" not in item for item in items):
        return Reason.IMAGE_EMBEDDINGS
    return None


def _why_no_exit(params: SamplingParams, context: RequestContext, lora: Any) -> str | None:
    asked = (
        (params.n > 1, Reason.N),
        (params.logprobs is not None or params.logprob_token_ids is not None, Reason.LOGPROBS),
        (context.tools, Reason.TOOLS),
        (params.structured_outputs is not None, Reason.STRUCTURED_OUTPUT),
        (lora is not None, Reason.LORA),
    )
    return next((reason for is_so, reason in asked if is_so), None)
