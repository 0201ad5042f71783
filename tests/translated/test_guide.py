"""What the translated guide does when something is missing, too long, or given up."""

import asyncio
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.renderers import ChatParams

from tests.support.prompts import make_prompt
from vllm_sgl.core import Answer, GuideRequest, GuideResult, Reason, VisualItem
from vllm_sgl.errors import GuideError, RequestAborted, Unguidable
from vllm_sgl.guide.views import translated
from vllm_sgl.guide.views.translated import Translated
from vllm_sgl.host.render.conversation import Conversation, attach, conversation_of

ANSWER = Answer("yes", (7, 2), (-0.1, -0.2), True, "stop")
RESULT = GuideResult([torch.ones(5), torch.ones(3)], ANSWER)
#: Of the small prompt; the large one has 15.
SMALL_TOKENS = 15


class FakeGuide:
    context, alive = 64, True

    def __init__(self):
        self.calls = []

    async def start(self):
        self.calls.append("start")

    async def look(self, request, answer_tokens):
        self.calls.append(request)
        return RESULT

    async def confirm(self, request, result, share):
        self.calls.append((request, result, share))
        return 0.5

    async def abort(self, request_id):
        self.calls.append(request_id)


class FakeRenderer:
    """Stands in for the second rendering; waits where it is told to."""

    def __init__(self):
        self.prompt = {**make_prompt(), "prompt": "small"}
        self.wait = asyncio.Event()
        self.wait.set()

    async def render(self, conversation, large):
        await self.wait.wait()
        if isinstance(self.prompt, Exception):
            raise self.prompt
        return self.prompt


def request(*, conversation=True, media=("a", "b")):
    prompt = make_prompt()
    if conversation:
        attach(prompt, Conversation([], ChatParams(), {"image": list(media)}))
    items = (VisualItem("image", 5), VisualItem("image", 3))
    return GuideRequest("r1", prompt, items, SamplingParams(stop_token_ids=[3]), 8, "prompt")


@pytest.fixture
def second():
    return FakeRenderer()


@pytest.fixture
def model():
    config = SimpleNamespace(multimodal_config=SimpleNamespace(get_limit_per_prompt=lambda _: 1), model="M")
    return SimpleNamespace(model_config=config, get_mm_processor=lambda: None)


@pytest.fixture
async def guide(monkeypatch, second, model):
    monkeypatch.setattr(translated, "own_values", lambda large, small: {})
    monkeypatch.setattr(translated, "left_out", lambda renderer: set())
    monkeypatch.setattr(translated, "SecondRenderer", lambda renderer, own: second)
    guide = Translated(FakeGuide(), model, model, None)
    await guide.start()
    return guide


@pytest.fixture
def inner(guide):
    return guide._guide


async def test_the_guide_is_asked_about_its_own_prompt(guide, inner, second):
    asked = request()
    result = await guide.look(asked, 8)
    salted = {**second.prompt, "cache_salt": asked.prompt["cache_salt"]}  # its cache is kept apart, too
    assert inner.calls[1].prompt == salted
    assert inner.calls[1].params.stop_token_ids == [3]  # both models have the same tokens
    assert (result.importance, result.answer.token_ids) == (RESULT.importance, ANSWER.token_ids)
    assert await guide.confirm(asked, result, 0.05) == 0.5
    small, own, share = inner.calls[2]
    assert (small.prompt, own, share) == (salted, RESULT, 0.05)


async def test_a_video_is_not_rendered_twice(guide, inner):
    asked = request()
    asked = replace(asked, items=(asked.items[0], VisualItem("video", 3)))
    with pytest.raises(Unguidable, match=Reason.UNSUPPORTED_MODALITY):
        await guide.look(asked, 8)
    assert inner.calls == ["start"]


async def test_how_long_a_prompt_is_shows_in_the_small_models_tokens(guide, inner):
    assert guide.context == sys.maxsize
    inner.context = SMALL_TOKENS + 2
    await guide.look(request(), 8)
    inner.context = SMALL_TOKENS + 1
    with pytest.raises(Unguidable) as caught:
        await guide.look(request(), 8)
    assert caught.value.reason == "too_long_for_small"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [(request(conversation=False), "no_conversation"), (request(media=("a", None)), "uuid_alone")],
)
async def test_requests_without_images_for_the_small_model(guide, inner, asked, reason):
    with pytest.raises(Unguidable) as caught:
        await guide.look(asked, 8)
    assert caught.value.reason == reason
    assert inner.calls == ["start"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (VLLMValidationError("Conversation roles must alternate"), "guide_refused"),
        (ValueError("more placeholders than images"), "guide_refused"),
        (RuntimeError("Expected there to be 1 prompt updates"), "guide_refused"),
        (AssertionError("Failed to apply prompt replacement"), "guide_refused"),
        (AttributeError("no such attribute"), "guide_failed"),
    ],
)
async def test_what_a_renderer_has_against_a_conversation_is_no_failure(guide, second, error, reason):
    second.prompt = error
    with pytest.raises(GuideError, match=f"renderer: {type(error).__name__}: {error}") as caught:
        await guide.look(request(), 8)
    assert caught.value.reason == reason


async def test_a_template_that_leaves_an_image_out(guide, second):
    places = second.prompt["mm_placeholders"]
    second.prompt = {**second.prompt, "mm_placeholders": {"image": places["image"][:1]}}
    with pytest.raises(GuideError, match=r"expected 2 images in the small model's prompt.* for 1") as caught:
        await guide.look(request(), 8)
    assert caught.value.reason == "guide_refused"


@pytest.mark.parametrize(
    ("said", "reason"),
    [({}, "guide_failed"), ({"named": True}, "guide_refused"),
     ({"processor_kwargs": {"size": 1}}, "guide_refused")],
)  # fmt: skip
async def test_other_visual_tokens_than_the_large_models(guide, second, said, reason):
    asked = request()
    attach(asked.prompt, replace(conversation_of(asked.prompt), **said))
    places = second.prompt["mm_placeholders"]
    second.prompt = {**second.prompt, "mm_placeholders": {"image": places["image"][:1] * 2}}
    with pytest.raises(GuideError, match=r"expected \(5, 3\) visual tokens .* makes \(5, 5\)") as caught:
        await guide.look(asked, 8)
    assert caught.value.reason == reason


async def test_an_abort_while_a_conversation_is_rendered(guide, inner, second):
    second.wait.clear()
    look = asyncio.create_task(guide.look(request(), 8))
    await asyncio.sleep(0)
    await guide.abort("r1")
    await guide.abort("someone else")
    second.wait.set()
    with pytest.raises(RequestAborted):
        await look
    assert inner.calls == ["start", "r1", "someone else"]
    await guide.look(request(), 8)  # the id is free again


async def test_a_dead_guide_renders_nothing(guide, inner, second):
    inner.alive = False
    second.prompt = AssertionError("rendered")
    with pytest.raises(GuideError) as caught:
        await guide.look(request(), 8)
    assert caught.value.reason == "guide_dead"


async def test_an_answer_of_somebody_else_cannot_be_confirmed(guide):
    with pytest.raises(GuideError, match="unchanged"):
        await guide.confirm(request(), RESULT, 0.05)


@pytest.mark.parametrize(("large", "said"), [(set(), 1), ({"system messages"}, 0)])
async def test_what_only_the_small_template_leaves_out_is_said_once(monkeypatch, caplog, model, large, said):
    small = SimpleNamespace(**{**vars(model), "name": "small"})
    monkeypatch.setattr(translated, "own_values", lambda large, small: None)
    monkeypatch.setattr(translated, "SecondRenderer", lambda renderer, own: None)
    monkeypatch.setattr(
        translated, "left_out", lambda renderer: {"system messages"} if renderer is small else large
    )
    monkeypatch.setattr(translated.logger, "propagate", True)
    caplog.set_level("INFO", translated.logger.name)
    await Translated(FakeGuide(), small, model, None).start()
    assert caplog.text.count("leaves out system messages") == said
    assert "images are processed a second time too" in caplog.text
