"""Asking, with stand-ins for the models: one look for all, and what cannot be explained is an error."""

import asyncio
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.inputs import PlaceholderRange

from vllm_sgl.commands.explain import asking
from vllm_sgl.commands.explain.asking import OneLook
from vllm_sgl.core import Answer, GuideResult, Reason, Report, VisualItem
from vllm_sgl.evaluate.errors import UsageError
from vllm_sgl.visual.layout import tiled


def layout_of(width, height):
    """Tiles of 112 pixels, side by side."""
    columns = width // 112
    return tiled(columns, 1, 4, thumbnail=columns > 1)


class CountingGuide:
    """A guide that answers with the number of the look."""

    context = 64
    alive = True
    looks = 0

    async def look(self, request, answer_tokens):
        self.looks += 1
        await asyncio.sleep(0)
        return GuideResult([torch.tensor([float(self.looks)])], Answer("", (), (), True, "stop"))

    async def confirm(self, request, result, share):
        return {"request": share}[request]


async def test_everybody_gets_the_same_look():
    guide = CountingGuide()
    look = OneLook(guide)
    seen = await asyncio.gather(*(look.look(object(), 32) for _ in range(3)))
    seen.append(await look.look(object(), 32))
    assert guide.looks == 1
    assert all(result is look.result for result in seen)
    assert look.context == 64
    assert await look.confirm("request", None, 0.25) == 0.25
    assert look.alive


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

    def seen(*counts):
        places = [PlaceholderRange(offset=60 * n, length=count) for n, count in enumerate(counts)]
        items = tuple(VisualItem("image", count) for count in counts)
        request = SimpleNamespace(items=items, prompt={"mm_placeholders": {"image": places}})
        return asking._seen(images, layout_of, {}, request, [torch.ones(count) for count in counts])

    one, two = seen(16, 48)
    assert (one.layout.columns, len(one.layout.views)) == (1, 1)
    assert (two.layout.columns, len(two.layout.views)) == (2, 2)
    with pytest.raises(RuntimeError, match=r"two\.png: expected 48 visual tokens .* the engine reports 32"):
        seen(16, 32)
