"""What is measured before the first request, over models whose seconds are made up."""

from types import SimpleNamespace

import pytest

from vllm_sgl.config import SGLConfig
from vllm_sgl.core import VisualItem
from vllm_sgl.engine import measure_costs
from vllm_sgl.host.render import dummy_prompts

#: Of each visual token of the guide's, of each token of the large model's.
GUIDE, PREFILL = 1e-3, 1e-2
#: Tokens of a question.
TEXT = 20


class Machine:
    """Both models, and the clock that their passes move. load: by what the seconds of each round of passes
    are multiplied; the last one stays."""

    def __init__(self, monkeypatch, visual, sees=None, images=999, context=4096, load=(1.0,)):
        self.context = 1 << 20  # of the guide, which is never the limit here
        self._visual = visual
        self._sees = sees or visual
        self._load = list(load)
        self._now = 0.0
        self.looked = []
        allowed = SimpleNamespace(get_limit_per_prompt=lambda modality: images)
        self.engine = SimpleNamespace(
            model_config=SimpleNamespace(multimodal_config=allowed, max_model_len=context)
        )
        monkeypatch.setattr(dummy_prompts, "noise", lambda *size, seed=0: SimpleNamespace(size=size[:2]))
        monkeypatch.setattr(dummy_prompts, "image_prompt", self._image_prompt)
        monkeypatch.setattr(
            dummy_prompts, "text_prompt", lambda engine, tokens: {"prompt_token_ids": [0] * tokens}
        )
        clock = SimpleNamespace(perf_counter=lambda: self._now, monotonic=lambda: self._now)
        monkeypatch.setattr(measure_costs, "time", clock)

    async def _image_prompt(self, engine, images):
        items = tuple(VisualItem("image", self._visual(*image.size)) for image in images)
        total = TEXT + sum(item.visual_tokens for item in items)
        return {"prompt_token_ids": [0] * total, "items": items, "sizes": [image.size for image in images]}

    def items(self, prompt):
        return prompt["items"]

    def sees(self, request):
        return sum(self._sees(*size) for size in request.prompt["sizes"])

    async def look(self, request, answer_tokens):
        self.looked.append(request.prompt["sizes"])
        self._now += (0.1 + GUIDE * self.sees(request)) * self._load[0]

    async def generate(self, prompt, params, request_id):
        self._now += PREFILL * len(prompt["prompt_token_ids"])
        if len(prompt["prompt_token_ids"]) == 32 and self._load[1:]:
            del self._load[0]  # a round ends with the large model's passes
        yield prompt

    async def measure(self):
        config = SGLConfig.parse({"small": "S"})
        return await measure_costs.measure(self.engine, self.generate, self, self, config)


def by_tiles(width, height):
    return 16 * max(1, round(width * height / 448**2))


def all_alike(width, height):
    return 64


async def test_images_with_few_and_with_many_visual_tokens(monkeypatch, caplog):
    measured = await Machine(monkeypatch, by_tiles).measure()
    assert measured.guide == (pytest.approx(0.1), pytest.approx(GUIDE))
    assert measured.seen == ()
    assert "measured with images of 16 and 192 visual tokens, 3 rounds in " in caplog.text


async def test_where_all_images_are_alike_several_in_a_prompt_are_measured(monkeypatch, caplog):
    machine = Machine(monkeypatch, by_tiles, sees=all_alike)
    measured = await machine.measure()
    assert measured.guide == (pytest.approx(0.1), pytest.approx(GUIDE))
    assert "measured with images of 64 and 256 visual tokens" in caplog.text
    assert {len(sizes) for sizes in machine.looked} == {1, measure_costs.SEVERAL}
    # What the guide has of one image is told by prompts with one.
    assert {seen for _, seen in measured.seen} == {64}


@pytest.mark.parametrize(("images", "most"), [(1, 1), (2, 2)])
async def test_no_more_images_than_the_server_allows(monkeypatch, images, most):
    machine = Machine(monkeypatch, all_alike, images=images)
    measured = await machine.measure()
    assert max(len(sizes) for sizes in machine.looked) == most
    # Where requests have one image, all of them cost the guide as much.
    assert measured.guide[1] == (0.0 if most == 1 else pytest.approx(GUIDE))


async def test_images_that_the_large_model_cannot_take_are_not_measured(monkeypatch):
    machine = Machine(monkeypatch, by_tiles, context=100)
    await machine.measure()
    assert max(by_tiles(*size) for (size,) in machine.looked) == 64


async def test_nothing_is_measured_where_no_image_is_allowed(monkeypatch):
    assert await Machine(monkeypatch, by_tiles, images=0).measure() is None


@pytest.mark.parametrize(
    ("load", "rounds", "told"),
    [((1,), 3, False), ((30, 1), 4, False), ((30, 30, 1), 5, False), ((4, 3, 2, 1), 5, True)],
)
async def test_rounds_until_the_verdict_is_stable(monkeypatch, caplog, load, rounds, told):
    """Guidance is worth more the quicker it is: a machine that is busy at first changes its verdict."""
    await Machine(monkeypatch, by_tiles, load=load).measure()
    assert f"{rounds} rounds in " in caplog.text
    assert ("the last ones still differed" in caplog.text) == told


async def test_a_guide_that_grows_faster_than_its_images(monkeypatch):
    """A straight line through its passes would be below zero for small images."""
    machine = Machine(monkeypatch, by_tiles)

    async def look(request, answer_tokens):
        machine._now += 1e-5 * machine.sees(request) ** 2

    machine.look = look
    measured = await machine.measure()
    assert measured.guide == (0, pytest.approx(192e-5))
    for tokens in (1, 16, 192):
        assert measured.guidance(tokens, 1) >= 0.99e-5 * tokens**2
