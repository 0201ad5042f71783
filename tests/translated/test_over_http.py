"""A translated pair behind a server, with the ``openai`` client: as if it shared its prompt, but for what the
two vocabularies rule out. The last test ends the guide."""

import openai
import pytest

from tests.matrix import test_entry_points as entry_points
from tests.serve.asking import TOOLS, VISUAL, ask, content, text
from tests.serve.walking import IMAGE, check_a_killed_guide, check_clients, check_exit_in_a_stream, of, turn
from tests.support.engines import user
from tests.support.images import QUESTIONS, random_image

#: The small model ends its answer by itself, in other numbers of tokens than the large one would.
SHORT = ("Is the door open?", IMAGE)
SYSTEM = {"role": "system", "content": "Answer with a single word."}


def test_the_log_says_how_the_pair_is_guided(server):
    log = server.log_text()
    assert log.count("over a prompt of its own; what differs: tokenizer, chat template") == 1
    assert log.count("its images are processed once for both models") == 1
    assert log.count("leaves out system messages") == 1
    assert "leaves out tools" not in log  # so does the large model's


@pytest.mark.parametrize("send", entry_points.WITH_MESSAGES)
def test_every_entry_point_with_messages_is_guided(server, walked, send):
    image = random_image(0, *entry_points.SIZE)
    outcome, answer = walked([user(entry_points.QUESTION, image)], entry_points.MOST)
    found, report = send(server)
    assert (found, *of(report)) == (answer, "prune", None, outcome.report.kept_tokens)


def test_an_entry_point_without_messages_has_no_image(server):
    completion = server.client.completions.create(model=server.model, prompt="Who is it?", max_tokens=4)
    assert of(completion.sgl) == ("bypass", "no_image", 0)


def test_exit(server, walked, alone):
    outcome, answer = walked([turn(*SHORT)], 40, sgl_exit_threshold=0)
    assert (outcome.report.decision, outcome.answer.finish_reason) == ("exit", "stop")
    whole = ask(server, *SHORT, sgl={"exit_threshold": 0}, max_tokens=40, temperature=1.5, seed=5)
    assert of(whole.sgl) == ("exit", None, 0)
    assert (text(whole), whole.choices[0].finish_reason) == (answer, "stop")
    assert whole.usage.completion_tokens == len(outcome.answer.token_ids)
    assert whole.usage.prompt_tokens == len(alone.render_chat([turn(*SHORT)])["prompt_token_ids"])
    assert whole.sgl["score"] == pytest.approx(outcome.report.score, rel=1e-3)


def test_exit_in_a_stream(server, walked):
    question, _ = SHORT
    check_exit_in_a_stream(server, question, *walked([turn(question)], 40, sgl_exit_threshold=0))


@pytest.mark.parametrize(
    "options",
    [
        {"extra": {"return_token_ids": True}},
        {"extra": {"stop_token_ids": [5]}},
        {"extra": {"allowed_token_ids": [40, 41, 42]}},
        {"extra": {"min_tokens": 3}},
        {"extra": {"skip_special_tokens": False}},
        {"logit_bias": {"300": 5}},
    ],
    ids=lambda options: next(iter(options.get("extra", options))),
)
def test_who_speaks_of_tokens_is_answered_by_the_large_model(server, options):
    completion = ask(server, *SHORT, sgl={"exit_threshold": 0}, **options)
    assert of(completion.sgl) == ("prune", "token_ids", 39)
    if "return_token_ids" in options.get("extra", {}):
        assert len(completion.choices[0].token_ids) == completion.usage.completion_tokens


def test_several_answers(server):
    completion = ask(server, *SHORT, sgl={"exit_threshold": 0}, n=2, temperature=0.9)
    assert of(completion.sgl) == ("prune", "n", 39)
    assert [choice.index for choice in completion.choices] == [0, 1]


def test_tools_reach_the_large_model_and_rule_an_exit_out(server):
    plain = ask(server, *SHORT)
    offered = ask(server, *SHORT, sgl={"exit_threshold": 0}, tools=TOOLS)
    assert of(offered.sgl) == ("prune", "tools", 39)
    assert offered.usage.prompt_tokens > plain.usage.prompt_tokens


def test_a_system_message_and_earlier_turns(server, walked):
    messages = [SYSTEM, turn("Who is it?", 3), {"role": "assistant", "content": "Nobody."}, turn(*SHORT)]
    outcome, answer = walked(messages, 12)
    completion = server.client.chat.completions.create(
        model=server.model, messages=messages, max_tokens=12, temperature=0
    )
    assert outcome.report.visual_tokens == 2 * VISUAL
    assert (text(completion), *of(completion.sgl)) == (answer, "prune", None, outcome.report.kept_tokens)


def test_prompts_that_only_the_large_model_can_take(server):
    """The small model's tokenizer makes more tokens of the same text, and its context is as long."""
    long = "one two three four five six seven eight nine ten. " * 34
    completion = ask(server, long, IMAGE, max_tokens=2)
    assert completion.usage.prompt_tokens < 1024 - 2
    assert of(completion.sgl) == ("bypass", "too_long_for_small", VISUAL)


def test_bad_key(server):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(server, *SHORT, sgl={"retention": 1.5})
    assert "sgl_retention" in caught.value.body["message"]


def test_eight_clients_with_questions_about_one_image(server, clients, walked):
    settings = [{"retention": 0.35}, {"retention": 0.09}, {"retention": 0.35, "exit_threshold": 0.2}]
    asked = [(question, settings[number % 3]) for number, question in enumerate(QUESTIONS)] * 2
    check_clients(server, clients, walked, asked, 12)


def test_images_by_parts_of_several_kinds(server, walked):
    """Without a type, and with a name of the client's own: the media that were fetched are what counts."""
    parts = content("What is on the sign?", [IMAGE])
    url = parts[0]["image_url"]["url"]
    outcome, answer = walked([turn("What is on the sign?")], 12)
    for part in ({"image_url": url}, {"type": "image_url", "image_url": {"url": url}, "uuid": "mine"}):
        completion = server.client.chat.completions.create(
            model=server.model, messages=[{"role": "user", "content": [part, parts[1]]}], max_tokens=12,
            temperature=0,
        )  # fmt: skip
        assert (text(completion), *of(completion.sgl)) == (answer, "prune", None, outcome.report.kept_tokens)


def test_a_killed_guide_is_started_again(server, clients):
    check_a_killed_guide(server, clients, SHORT[0])
