"""Differences between two vocabularies: parameters that name tokens, and the tokens of an answer."""

from typing import Any

from vllm import SamplingParams

from vllm_sgl.core import Answer, GuideRequest


def without_tokens(params: SamplingParams) -> SamplingParams:
    """A client's parameters without those that name or count the large model's tokens."""
    params = params.clone()
    params.stop_token_ids, params.logit_bias, params.allowed_token_ids = [], None, None
    params.min_tokens = 0
    return params


class LargeVocabulary:
    """Puts the small model's answers into the large model's tokens.

    Args:
        tokenizer: the large model's.
        end_token: the id with which the large model ends an answer; None where it has none.
    """

    def __init__(self, tokenizer: Any, end_token: int | None) -> None:
        self._tokenizer = tokenizer
        self._end_token = end_token

    def translate(self, answer: Answer, asked: GuideRequest) -> Answer:
        """The answer in the large model's tokens, within the client's limit. The
        log-probabilities stay those of the tokens that the guide generated.

        It is no finished answer where it has no text (the guide said nothing but special tokens, which have
        no counterpart), or where the guide came to the limit in its own tokens and the large model would
        not have.
        """
        text, reason, stop = answer.text, answer.finish_reason, answer.stop_reason
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        finished = bool(text) and answer.finished
        if reason == "stop" and not isinstance(stop, str):
            stop = None  # an id here is one of the small model's end tokens
            if self._end_token is not None:
                ids.append(self._end_token)
        if len(ids) > asked.max_tokens:
            ids, reason, stop = ids[: asked.max_tokens], "length", None
            text = self._tokenizer.decode(ids, skip_special_tokens=True)
        elif reason == "length":
            finished = finished and len(ids) == asked.max_tokens
        return Answer(text, tuple(ids), answer.logprobs, finished, reason, stop)
