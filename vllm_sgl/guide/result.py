"""What the guide returns: plain values."""

from dataclasses import dataclass

import torch

from vllm_sgl.guide import score


@dataclass(frozen=True)
class Answer:
    """The small model's greedy answer.

    token_ids and logprobs have one entry per generated token, the end token included. finished: the
    answer ended by itself, or is as long as the request's own max_tokens.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool
    finish_reason: str | None
    stop_reason: int | str | None = None


@dataclass(frozen=True)
class GuideResult:
    """importance: one float32 tensor [visual tokens] per image, in prompt order (see method in
    :mod:`vllm_sgl.guide.recorder`)."""

    importance: list[torch.Tensor]
    answer: Answer

    @property
    def confidence(self) -> float:
        return score.confidence(self.answer.logprobs)
