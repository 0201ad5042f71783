"""Asking, with stand-ins for the models: one look for all, and what cannot be explained is an error."""

import asyncio
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from vllm.exceptions import VLLMValidationError

from vllm_sgl.decision import Reason, Report
from vllm_sgl.explain import asking
from vllm_sgl.explain.asking import OneLook
from vllm_sgl.explain.errors import UsageError
from vllm_sgl.guide.result import Answer, GuideResult
from vllm_sgl.host.tiling import Tiling

TILING = Tiling(side=112, cells=4, thumbnail=True, ratios=((1, 1), (2, 1)))


class CountingGuide:
    """A guide that answers with the number of the look."""

    context = 64
    looks = 0

    async def look(self, request, guide_tokens):
        self.looks += 1
        await asyncio.sleep(0)
        return GuideResult([torch.tensor([float(self.looks)])], Answer("", (), (), True, "stop"))

    async def consistency(self, id, prompt, answer, priority=0):
        return {"request": 0.25}[id]


async def test_everybody_gets_the_same_look():
    guide = CountingGuide()
    look = OneLook().wrap(guide)
    seen = await asyncio.gather(*(look.look(object(), 32) for _ in range(3)))
    seen.append(await look.look(object(), 32))
    assert guide.looks == 1
    assert all(result is look.result for result in seen)
    assert look.context == 64
    assert await look.consistency("request", None, None) == 0.25


def explain(monkeypatch, answer):
    """``asking.explain`` over an ``LLM`` whose chat is ``answer``; also, whether it was shut down."""
    ended = []
    llm = SimpleNamespace(chat=answer, shutdown=lambda: ended.append(True))
    monkeypatch.setattr(asking, "LLM", lambda *args, **kwargs: llm)
    with pytest.raises(UsageError) as error:
        asking.explain(
            "LARGE", "SMALL", [("a.png", Image.new("RGB", (9, 9)))], "Who?",
            retentions=[0.5], exit_threshold=None, max_tokens=4, arguments={},
        )  # fmt: skip
    assert ended == [True]
    return str(error.value)


def test_a_question_that_the_small_model_cannot_take(monkeypatch):
    def bypass(conversations, params, **_):
        return [SimpleNamespace(sgl=Report("bypass", Reason.TOO_LONG)) for _ in conversations]

    words = explain(monkeypatch, bypass)
    assert "cannot look at this question (too_long_for_small): give fewer or smaller images" in words


def test_a_question_that_vllm_refuses(monkeypatch):
    def refuse(*args, **kwargs):
        raise VLLMValidationError("longer than the maximum")

    assert explain(monkeypatch, refuse) == "the question cannot be asked: longer than the maximum"


def test_tiles_that_are_not_the_engines_are_an_error():
    images = [("one.png", Image.new("RGB", (112, 112))), ("two.png", Image.new("RGB", (224, 112)))]
    one, two = asking._seen(images, TILING, [torch.ones(16), torch.ones(48)])
    assert (one.layout.tiles, one.layout.thumbnail) == (1, False)
    assert (two.layout.tiles, two.layout.thumbnail) == (2, True)
    with pytest.raises(RuntimeError, match=r"two\.png: expected 48 visual tokens .* the engine reports 32"):
        asking._seen(images, TILING, [torch.ones(16), torch.ones(32)])
