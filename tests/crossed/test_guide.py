"""What a guide that carries importance does when something is missing, or does not add up."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from vllm import SamplingParams
from vllm.multimodal.parse import MultiModalDataParser
from vllm.renderers import ChatParams

from tests.support.prompts import make_prompt
from vllm_sgl.core import Answer, GuideRequest, GuideResult, VisualItem
from vllm_sgl.errors import GuideError, Unguidable
from vllm_sgl.guide.views.crossed import Crossed
from vllm_sgl.guide.views.translated import TranslatedResult
from vllm_sgl.host.render.conversation import Conversation, attach
from vllm_sgl.visual.layout import grid
from vllm_sgl.visual.transfer import transfers

#: Of the prompt's two images, with 5 and 3 visual tokens: a token of the large model is 10 x 10 pixels.
IMAGES = Image.new("RGB", (50, 10)), Image.new("RGB", (10, 30))
#: The small model's own: half as many across, and whole.
OWN = [torch.tensor([1.0, 2.0]), torch.tensor([5.0])]
ANSWER = Answer("yes", (7, 2), (-0.1, -0.2), True, "stop")


class FakeTranslated:
    """Answers as a translated guide does."""

    context, alive = 64, True

    def __init__(self):
        self.result, self.confirmed = None, []

    def sees(self, request):
        return sum(request.visual_tokens)

    async def look(self, request, answer_tokens):
        said = Answer("yes", (1, 2), ANSWER.logprobs, True, "stop")
        self.result = TranslatedResult(OWN, said, own=GuideResult(OWN, ANSWER), asked=self.asked(request))
        return self.result

    def asked(self, request):
        return request

    async def confirm(self, request, result, share):
        self.confirmed.append((request, result, share))
        return 0.5


@pytest.fixture
def inner():
    return FakeTranslated()


def small(width, height):
    return grid(2, 1) if width > height else grid(1, 1)


def large(width, height):
    return grid(width // 10, height // 10)


@pytest.fixture
def guide(inner):
    info = SimpleNamespace(parse_mm_data=MultiModalDataParser().parse_mm_data)
    return Crossed(inner, SimpleNamespace(info=info), lambda settings: transfers(small, large), "joint")


def request(images=IMAGES, *, kwargs=None, prompt=None, conversation=True, named=False):
    prompt = prompt or make_prompt()
    if conversation:
        attach(prompt, Conversation([], ChatParams(), {"image": list(images)}, kwargs or {}, named))
    items = (VisualItem("image", 5), VisualItem("image", 3))
    return GuideRequest("r1", prompt, items, SamplingParams(), 8, "prompt")


async def test_importance_is_the_large_models_and_confirmed_on_the_small_ones(guide, inner):
    asked = request()
    result = await guide.look(asked, 8)
    assert [part.tolist() for part in result.importance] == [
        pytest.approx([1, 1, 1.5, 2, 2]), pytest.approx([5, 5, 5]),
    ]  # fmt: skip
    assert result.answer is inner.result.answer
    assert await guide.confirm(asked, result, 0.05) == 0.5
    assert inner.confirmed == [(asked, inner.result, 0.05)]
    assert guide.sees(asked) == 3


async def test_images_that_the_small_models_prompt_has_in_another_order(guide, inner, monkeypatch):
    """Images are told apart by number: here the large model's prompt has the second one in front."""
    prompt = make_prompt()
    prompt["mm_placeholders"]["image"].reverse()
    inner.asked = lambda _: request()
    monkeypatch.setattr("tests.crossed.test_guide.OWN", OWN[::-1])
    result = await guide.look(request(IMAGES[::-1], prompt=prompt), 8)
    assert [part.tolist() for part in result.importance] == [
        pytest.approx([1, 1, 1.5, 2, 2]), pytest.approx([5, 5, 5]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (request(conversation=False), "no_conversation"),
        (request((IMAGES[0], None)), "uuid_alone"),
        (request((IMAGES[1], IMAGES[1]), kwargs={"max_dynamic_patch": 1}), "other_tiling"),
    ],
)
async def test_requests_that_it_cannot_look_at(guide, inner, asked, reason):
    with pytest.raises(Unguidable) as caught:
        await guide.look(asked, 8)
    assert caught.value.reason == reason
    assert inner.result is None
    assert guide.sees(asked) == 8  # as many as the large model's, where it cannot tell


async def test_settings_of_a_request(guide, inner):
    """Its images are where these say; the latest settings are kept. What nobody understands is left alone."""
    asked_for = []

    def of(settings):
        asked_for.append(settings)
        if "odd" in settings:
            raise TypeError("unexpected keyword argument")
        return transfers(small, lambda width, height: grid(5, 1) if settings["wide"] else grid(3, 1))

    guide._transfers_of = of
    prompt = make_prompt()
    prompt["mm_placeholders"]["image"] = prompt["mm_placeholders"]["image"][:1]
    inner.asked = lambda _: request(prompt=prompt)
    for wide in (True, True, *range(1, 20), True):
        asked = request(IMAGES[:1], kwargs={"wide": wide}, prompt={**prompt})
        assert guide.sees(asked) == 2
    assert [settings["wide"] for settings in asked_for] == [True, *range(1, 20), True]
    for kwargs in ({"wide": False}, {"odd": 1}):
        with pytest.raises(Unguidable, match="other_tiling"):
            await guide.look(request(IMAGES[:1], kwargs=kwargs, prompt={**prompt}), 8)


async def test_other_modalities(guide):
    prompt = make_prompt()
    prompt["mm_placeholders"] = {"video": prompt["mm_placeholders"]["image"]}
    with pytest.raises(Unguidable) as caught:
        await guide.look(request(prompt=prompt), 8)
    assert caught.value.reason == "unsupported_modality"


async def test_images_that_are_not_cut_as_their_family_says(guide):
    with pytest.raises(
        GuideError, match=r"expected 3 visual tokens for an image of \(10, 30\) pixels, .* has 5"
    ):
        await guide.look(request((IMAGES[1], IMAGES[1])), 8)


async def test_a_uuid_that_another_image_had_is_the_clients_doing(guide, inner):
    with pytest.raises(GuideError, match="expected an image of 5 visual tokens under its uuid") as caught:
        await guide.look(request((IMAGES[1], IMAGES[1]), named=True), 8)
    assert caught.value.reason == "guide_refused"
    assert inner.result is None


@pytest.mark.parametrize("error", [ValueError("aspect ratio"), ZeroDivisionError(), KeyError("size")])
async def test_an_image_that_the_small_model_does_not_take(guide, inner, error):
    def refuse(width, height):
        raise error

    guide._transfers_of = lambda settings: transfers(refuse, large)
    asked = request()
    with pytest.raises(GuideError, match="one of the two models does not take") as caught:
        await guide.look(asked, 8)
    assert caught.value.reason == "guide_refused"
    assert guide.sees(asked) == 8
    assert inner.result is None


async def test_a_small_model_that_sees_other_tokens_than_its_family_says(guide, monkeypatch):
    monkeypatch.setattr("tests.crossed.test_guide.OWN", [torch.ones(2), torch.ones(2)])
    with pytest.raises(GuideError, match="expected the importance of 1 visual tokens") as caught:
        await guide.look(request(), 8)
    assert caught.value.reason == "guide_failed"


async def test_a_result_of_somebody_else_cannot_be_confirmed(guide):
    with pytest.raises(GuideError, match="unchanged"):
        await guide.confirm(request(), GuideResult(OWN, ANSWER), 0.05)
