"""Conversations that a large model takes and a guide may not: images and texts, with one outcome allowed."""

from typing import Any

import pytest
from vllm.exceptions import VLLMClientError

from tests.support.deep_size import deep_size
from tests.support.engines import Engines, user
from tests.support.images import random_image

_IMAGE = random_image(41, 300, 200)
_PLACEHOLDERS = "<image> <IMG_CONTEXT> <|image_pad|> <|vision_start|><|image_pad|><|vision_end|> <image>?"

CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "a line across": [user("How many?", _IMAGE.resize((1000, 3)))],
    "a line down": [user("How many?", _IMAGE.resize((3, 1000)))],
    "a dot": [user("How many?", _IMAGE.resize((1, 1)))],
    "placeholders as text": [user(_PLACEHOLDERS, _IMAGE)],
    "an image of the system": [
        {"role": "system", "content": user("Look.", _IMAGE)["content"]}, user("How many?"),
    ],
    "an image of the assistant": [
        user("Draw."), {"role": "assistant", "content": user("Here.", _IMAGE)["content"]}, user("How many?"),
    ],
    "two turns of one": [user("Look.", _IMAGE), user("How many?")],
    "no turn of the user": [{"role": "assistant", "content": user("Here.", _IMAGE)["content"]}],
    "a role of its own": [{**user("How many?", _IMAGE), "role": "referee"}],
}  # fmt: skip


async def check_odd_conversation(engines: Engines, name: str) -> Any:
    """It is guided or left alone with a reason, whatever the guide has against it: no failure, which would be
    a 503 here. What is left of it has no pixels.

    Returns:
        its outcome; None where the large model refuses it.
    """
    try:
        prompt = engines.render_chat(CONVERSATIONS[name])
    except (VLLMClientError, ValueError, RuntimeError):
        return None
    if not engines.reader.items(prompt):
        return None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines.pipeline, "_config", engines.config.model_copy(update={"on_error": "fail"}))
        outcome = await engines.walk(prompt)
    assert outcome.report.reason in (None, "guide_refused", "too_long_for_small"), outcome
    check_nothing_is_kept_alive(outcome, prompt)
    return outcome


def check_nothing_is_kept_alive(outcome: Any, prompt: Any) -> None:
    """A report may stay for as long as a client's response, or an offline output: its size is that of masks
    and importance, and a few kilobytes without them."""
    report, tokens = outcome.report, outcome.report.visual_tokens
    assert deep_size(report.without_tensors()) < 8_000
    assert deep_size(report) < 16_000 + 16 * tokens
    assert deep_size(prompt["mm_kwargs"]) > 16_000 + 16 * tokens  # else nothing is shown
