"""A reply that came another way than its setting says is no answer."""

import pytest

from benchmarks.accuracy.asking import Ask, Reply
from benchmarks.accuracy.settings import Setting
from tests.support.images import random_image
from tools.internvl_reference.tiling import Tiling
from vllm_sgl.evaluate.questions import Question

TILING = Tiling(side=112, cells=4, min_tiles=1, max_tiles=6, thumbnail=True)


@pytest.fixture
def ask(tmp_path):
    random_image(0, 300, 200).save(tmp_path / "image.jpg")
    question = Question("a", (tmp_path / "image.jpg",), "What?", ("42",))
    return lambda *setting, **more: Ask(question, Setting(*setting, **more), TILING, max_tokens=16)


def reply(decision=None, reason=None, visual=112, kept=39, **more):
    sgl = {"decision": decision, "reason": reason, "visual_tokens": visual, "kept_tokens": kept, **more}
    return Reply("42", 130, 2, sgl if decision else None)


@pytest.mark.parametrize(
    ("setting", "came", "words"),
    [
        (("sgp", 0.35), reply(), "question 'a', sgp 0.35: the reply has no sgl object"),
        (
            ("sgp", 0.35),
            reply("bypass", "guide_timeout"),
            "expected the decision prune, received bypass",
        ),
        (("full",), reply("prune"), "expected the decision bypass, received prune"),
        (("small",), reply("prune", "unfinished"), "expected the decision exit, received prune .unfinished"),
        (("sgp", 0.35, None, None, 0.5), reply("bypass", "x"), "expected the decision exit or prune"),
        (("sgp", 0.35), reply("prune", visual=96), "expected 112 visual tokens, received 96"),
        (("downsample", 0.35), reply("bypass"), "expected 16 visual tokens, received 112"),
    ],
)
def test_another_way_is_refused(ask, setting, came, words):
    with pytest.raises(RuntimeError, match=words):
        ask(*setting).record(came)


def test_a_plain_server_knows_no_counts(ask):
    record = ask("downsample", 0.35).record(reply())
    assert (record["visual_tokens"], record["kept_tokens"], record["share"]) == (16, 16, 16 / 112)
    assert (record["exited"], record["score"]) == (False, None)
    assert (record["tiles"], record["encoded_tiles"]) == (1, 1)


@pytest.mark.parametrize(("method", "encoded"), [("sgp", 4), ("random", 4), ("divprune", 7), ("fastv", 7)])
def test_closed_tiles_are_not_encoded_unless_they_are_ranked_by_their_features(ask, method, encoded):
    record = ask(method, 0.35).record(reply("prune", tiles=7, encoded_tiles=4))
    assert (record["tiles"], record["encoded_tiles"]) == (7, encoded)


def test_merging_encodes_every_tile(ask):
    """Its answer ends the request as the small model's would, with nothing encoded by the engine."""
    record = ask("tome", 0.35).record(reply("exit", tiles=7, encoded_tiles=0))
    assert (record["tiles"], record["encoded_tiles"], record["kept_tokens"]) == (7, 7, 39)


def test_an_older_server_does_not_say_what_it_encoded(ask):
    assert ask("sgp", 0.35).record(reply("prune"))["encoded_tiles"] is None


def test_request_keys(ask):
    assert ask("full").xargs == ask("downsample", 0.35).xargs == {"sgl_enabled": 0}
    assert ask("small").xargs == {"sgl_exit_threshold": 0, "sgl_guide_tokens": 16}
    assert ask("sgp", 0.35).xargs == {"sgl_retention": 0.35, "sgl_exit_threshold": "off"}
    assert ask("sgp", 0.35, query_rows="prompt").xargs["sgl_query_rows"] == "prompt"
    assert ask("sgp", 1, exit_threshold=0).xargs == {"sgl_retention": 1, "sgl_exit_threshold": 0}
    ranked = ask("oracle", 0.35).xargs
    assert ranked["accuracy_ranking"] == "oracle"
    assert ranked["accuracy_question"] == "a"
    assert 0 < ask("blind").xargs["sgl_retention"] < 1e-6


def test_images_go_as_they_are_unless_resized(ask):
    (image, text) = ask("full").messages[0]["content"]
    assert image["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert text == {"type": "text", "text": "What?"}
    (image, _) = ask("downsample", 0.35).messages[0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
