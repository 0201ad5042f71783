"""The shipped reader of another family guides the shipped large model, both as vLLM runs them."""

import asyncio

import pytest
from PIL import Image

from benchmarks.crossed.__main__ import NATIVE
from examples.demo import LARGE
from tests.support.engines import Engines, user
from tools import sign_reading
from vllm_sgl.evaluate.questions import load

QUESTIONS, RETENTION, MAX_TOKENS = 24, 0.18, 8


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    return load(sign_reading.write("test", QUESTIONS, tmp_path_factory.mktemp("signs")))


@pytest.fixture(scope="module")
def answered(questions):
    """Report and text of each question."""
    engines = Engines((NATIVE, LARGE), sgl={"retention": RETENTION})

    async def ask_all():
        found = []
        for question in questions:
            images = [Image.open(path).convert("RGB") for path in question.images]
            outcome = await engines.walk(
                engines.render_chat([user(question.text, *images)]), max_tokens=MAX_TOKENS
            )
            ids, _ = await engines.answer_large(outcome.prompt, MAX_TOKENS)
            text = engines.renderer.get_tokenizer().decode(ids, skip_special_tokens=True)
            found.append((outcome.report, text))
        return found

    try:
        assert engines.verdict.way == "crossed"
        return asyncio.run(ask_all())
    finally:
        engines.shutdown()


def test_answers_are_right(questions, answered):
    right = [text in question.answers for question, (_, text) in zip(questions, answered, strict=True)]
    assert sum(right) >= 0.85 * QUESTIONS
    assert {report.decision for report, _ in answered} == {"prune"}
