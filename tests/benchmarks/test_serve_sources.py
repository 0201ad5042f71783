"""Requests: right answers, visual tokens as vLLM counts them, and no image twice."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from vllm.transformers_utils.processors import internvl

from benchmarks.serve.sources import Pictures, Signs
from tools.sign_reading.scene import paint
from tools.sign_reading.split import example


def images(request):
    urls = [part["image_url"]["url"] for part in request.content if part["type"] == "image_url"]
    decoded = (base64.b64decode(url.split(",", 1)[1]) for url in urls)
    return [Image.open(io.BytesIO(image)) for image in decoded]


def tokens(image):
    """Sixteen for each of vLLM's tiles."""
    width, height = image.size
    tiles, _, _ = internvl.calculate_internvl_targets(
        orig_width=width, orig_height=height, image_size=112, use_thumbnail=True,
        target_ratios=internvl.get_internvl_target_ratios(1, 12),
    )  # fmt: skip
    return 16 * tiles


@pytest.fixture(scope="module")
def signs():
    return Signs()


def test_signs_are_the_test_split_but_for_a_pixel(signs):
    for number, request in enumerate(signs.make(range(6))):
        asked = example("test", number)
        assert request.content[-1] == {"type": "text", "text": asked.question.text}
        assert request.answers == (asked.question.answer,)
        assert request.answer_tokens == len(asked.question.answer) + 1
        assert request.worth(f" {asked.question.answer}.") == 1
        assert request.worth("another") == 0
        for sent, scene in zip(images(request), asked.scenes, strict=True):
            different = (np.array(sent) != np.array(paint(scene).convert("RGB"))).any(-1)
            assert different.sum() <= 1
            assert not different[1:].any()
            assert not different[:, 1:].any()
        assert request.visual_tokens == sum(map(tokens, images(request)))


def test_no_server_sees_an_image_twice(signs):
    sent = [image.tobytes() for _ in range(3) for request in signs.make([1, 2]) for image in images(request)]
    assert len(set(sent)) == len(sent)
    texts = [[one.content[-1] for one in signs.make([1, 2])] for _ in range(2)]
    assert texts[0] == texts[1]


def test_downsampled_images_have_so_many_visual_tokens_or_fewer(signs):
    whole, smaller = signs.make([0, 3]), signs.make([0, 3], share=0.35)
    for before, after in zip(whole, smaller, strict=True):
        assert 16 <= after.visual_tokens <= 0.35 * before.visual_tokens
        assert after.visual_tokens == sum(map(tokens, images(after)))
        assert after.answers == before.answers


def test_what_is_put_aside_is_asked_by_no_load(signs):
    first, second = ([one.content[-1]["text"] for one in signs.aside(8)] for _ in range(2))
    assert first != second
    assert signs.aside(1)[0].answers


def test_pictures_are_new_every_time():
    pictures = Pictures((60, 40), visual_tokens=112, max_tokens=4)
    first, second = (pictures.make(range(2)) for _ in range(2))
    assert len({images(one)[0].tobytes() for one in (*first, *second)}) == 4
    assert {(one.visual_tokens, one.answer_tokens, one.answers) for one in first} == {(112, 4, ())}
