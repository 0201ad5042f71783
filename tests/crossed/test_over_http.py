"""A crossed pair behind a server, with the ``openai`` client: InternVL guides LLaVA-OneVision. What is
expected is the walk in this process, which ``test_engines.py`` holds against transformers. The last test ends
the guide."""

import openai
import pytest

from tests.matrix import test_entry_points as entry_points
from tests.serve.asking import TOOLS, ask, text
from tests.serve.walking import IMAGE, check_a_killed_guide, check_clients, check_exit_in_a_stream, of, turn
from tests.support.engines import user
from tests.support.images import QUESTIONS, random_image
from tests.support.server import Server

from .pairs import PAIRS

CROSSED = PAIRS["internvl to llava_onevision"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return CROSSED.build(tmp_path_factory.mktemp("crossed"))


@pytest.fixture(scope="module")
def server(pair, tmp_path_factory):
    small, large = pair
    flags = [
        f"--sgl-small={small}", "--sgl-break-even=off", "--sgl-follow-ups=off", "--enable-auto-tool-choice",
        "--tool-call-parser=hermes",
    ]  # fmt: skip
    with Server(large, tmp_path_factory.mktemp("server") / "server.log", flags) as running:
        yield running


@pytest.fixture(scope="module")
def exiting(walked):
    """A question that exits by itself within 40 tokens, and what comes of it."""
    for question in QUESTIONS:
        outcome, answer = walked([turn(question)], 40, sgl_exit_threshold=0)
        if outcome.report.decision == "exit" and outcome.answer.finish_reason == "stop":
            return question, outcome, answer
    raise AssertionError("no question ends by itself: another seed of the small model is needed")


def test_the_log_says_how_the_pair_is_guided(server):
    log = server.log_text()
    assert log.count("importance is carried to the large model's visual tokens by where they lie") == 1
    assert log.count("its images are processed a second time too") == 1


@pytest.mark.parametrize("send", entry_points.WITH_MESSAGES)
def test_every_entry_point_with_messages_is_guided(server, walked, send):
    image = random_image(0, *entry_points.SIZE)
    outcome, answer = walked([user(entry_points.QUESTION, image)], entry_points.MOST)
    found, report = send(server)
    assert (found, *of(report)) == (answer, "prune", None, outcome.report.kept_tokens)


def test_exit(server, alone, exiting):
    question, outcome, answer = exiting
    whole = ask(server, question, IMAGE, sgl={"exit_threshold": 0}, max_tokens=40)
    assert of(whole.sgl) == ("exit", None, 0)
    assert (text(whole), whole.choices[0].finish_reason) == (answer, "stop")
    assert whole.usage.completion_tokens == len(outcome.answer.token_ids)
    assert whole.usage.prompt_tokens == len(alone.render_chat([turn(question)])["prompt_token_ids"])
    for name in ("score", "confidence", "consistency"):
        assert whole.sgl[name] == pytest.approx(getattr(outcome.report, name), rel=1e-3)


def test_exit_in_a_stream(server, exiting):
    check_exit_in_a_stream(server, *exiting)


def test_usage_counts_the_whole_prompt(server, alone, walked):
    """Of the large model, whatever the small one was given: two images, one of them in an earlier turn."""
    messages = [turn("Who is it?", 3), {"role": "assistant", "content": "Nobody."}, turn("And now?", 4)]
    outcome, answer = walked(messages, 12)
    completion = server.client.chat.completions.create(
        model=server.model, messages=messages, max_tokens=12, temperature=0
    )
    assert (text(completion), *of(completion.sgl)) == (answer, "prune", None, outcome.report.kept_tokens)
    assert completion.sgl["visual_tokens"] == outcome.report.visual_tokens
    prompt = alone.render_chat(messages)
    assert completion.usage.prompt_tokens == len(prompt["prompt_token_ids"])


def test_requests_that_never_exit(server):
    for reason, options in (
        ("n", {"n": 2, "temperature": 0.8}),
        ("tools", {"tools": TOOLS}),
        ("token_ids", {"extra": {"stop_token_ids": [5]}}),
    ):
        completion = ask(server, QUESTIONS[0], IMAGE, sgl={"exit_threshold": 0}, **options)
        assert (completion.sgl["decision"], completion.sgl["reason"]) == ("prune", reason)
        assert len(completion.choices) == options.get("n", 1)


def test_bad_keys(server):
    for sgl in ({"retention": 1.5}, {"views": "separate"}):  # the second is the server's alone
        with pytest.raises(openai.BadRequestError, match=f"sgl_{next(iter(sgl))}"):
            ask(server, QUESTIONS[0], IMAGE, sgl=sgl)


def test_eight_clients_with_different_questions(server, clients, walked):
    settings = [{"retention": 0.35}, {"retention": 0.09}, {"retention": 0.35, "exit_threshold": 0}]
    check_clients(server, clients, walked, [(q, sgl) for sgl in settings for q in QUESTIONS], 40)


def test_a_killed_guide_is_started_again(server, clients):
    check_a_killed_guide(server, clients, QUESTIONS[0])
