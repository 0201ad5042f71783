"""An answer in another vocabulary's tokens, and which requests are about tokens."""

from dataclasses import replace

import pytest
from vllm import SamplingParams

from vllm_sgl.core import Answer, GuideRequest, Reason
from vllm_sgl.guide.views.vocabulary import LargeVocabulary, without_tokens
from vllm_sgl.request.client_request import Asked
from vllm_sgl.request.facts import FactsReader

from ..support.prompts import make_prompt

END = 0


class Letters:
    """One token a letter; the end token says nothing."""

    def encode(self, text, add_special_tokens):
        assert not add_special_tokens
        return [ord(letter) for letter in text]

    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return "".join(chr(id) for id in ids if id != END)


def ids(text, *more):
    return (*map(ord, text), *more)


def translate(answer, max_tokens=8, end=END):
    asked = GuideRequest("r", {}, (), SamplingParams(), max_tokens, "prompt")
    return LargeVocabulary(Letters(), end).translate(answer, asked)


#: The small model ends by a token of its own, 900.
ENDED = Answer("yes", (700, 900), (-0.1, -0.2), True, "stop")


def test_text_stays_and_ids_become_the_large_models():
    found = translate(ENDED)
    assert (found.text, found.token_ids, found.logprobs) == ("yes", ids("yes", END), (-0.1, -0.2))
    assert (found.finished, found.finish_reason, found.stop_reason) == (True, "stop", None)


def test_a_model_without_an_end_token():
    assert translate(ENDED, end=None).token_ids == ids("yes")


def test_an_end_token_among_several_is_nothing_to_the_client():
    found = translate(replace(ENDED, stop_reason=901))
    assert (found.token_ids, found.stop_reason) == (ids("yes", END), None)


def test_a_stop_string_is_the_clients_and_no_end_token_follows():
    found = translate(replace(ENDED, stop_reason="!"))
    assert (found.token_ids, found.stop_reason) == (ids("yes"), "!")
    assert (found.finished, found.finish_reason) == (True, "stop")


@pytest.mark.parametrize(
    ("most", "text", "reason"), [(4, "yes", "stop"), (3, "yes", "length"), (2, "ye", "length")]
)
def test_an_answer_is_cut_where_the_large_models_would_have_been(most, text, reason):
    found = translate(ENDED, max_tokens=most)
    assert (found.text, found.finish_reason, found.stop_reason) == (text, reason, None)
    assert len(found.token_ids) == min(most, 4)
    assert found.finished


@pytest.mark.parametrize(("most", "finished"), [(2, True), (3, True), (4, False)])
def test_an_answer_that_came_to_the_limit_in_small_tokens_only_is_not_finished(most, finished):
    cut = Answer("yes", (700, 701), (-0.1, -0.1), True, "length")
    assert translate(cut, max_tokens=most).finished is finished


def test_an_answer_without_text_never_exits():
    found = translate(replace(ENDED, text=""))
    assert not found.finished


def test_parameters_that_speak_of_tokens_stay_behind():
    params = SamplingParams(
        temperature=0.3, max_tokens=9, stop=["x"], bad_words=["no"], stop_token_ids=[5], logit_bias={7: 1.0},
        allowed_token_ids=[8], min_tokens=3,
    )  # fmt: skip
    found = without_tokens(params)
    assert (found.stop_token_ids, found.logit_bias, found.allowed_token_ids, found.min_tokens) == (
        [],
        None,
        None,
        0,
    )
    assert (found.max_tokens, found.stop, found.bad_words) == (9, ["x"], ["no"])
    assert params.stop_token_ids == [5]


ABOUT_TOKENS = [
    {"stop_token_ids": [3]},
    {"allowed_token_ids": [3]},
    {"logit_bias": {3: 1.0}},
    {"min_tokens": 1},
    {"skip_special_tokens": False},
]


@pytest.mark.parametrize("params", ABOUT_TOKENS, ids=lambda params: next(iter(params)))
@pytest.mark.parametrize("same_tokens", [True, False])
def test_requests_about_tokens_never_exit_across_vocabularies(params, same_tokens):
    reader = FactsReader({"image": "pixel_values_flat"}, 64, same_tokens=same_tokens)
    facts = reader.read(make_prompt(), SamplingParams(max_tokens=8, **params), Asked(), None)
    assert facts.no_exit == (None if same_tokens else Reason.TOKEN_IDS)
    assert facts.bypass is None


def test_an_answer_that_is_forced_on_is_judged_by_its_length_in_any_vocabulary():
    reader = FactsReader({"image": "pixel_values_flat"}, 64, same_tokens=False)
    params = SamplingParams(max_tokens=8, ignore_eos=True)
    facts = reader.read(make_prompt(), params, Asked(), None)
    assert (facts.no_exit, facts.forced_tokens) == (None, 8)


@pytest.mark.parametrize(("asked", "reason"), [(Asked(), None), (Asked(token_ids=True), "token_ids")])
def test_who_wants_to_see_ids_gets_the_large_models(asked, reason):
    reader = FactsReader({"image": "pixel_values_flat"}, 64, same_tokens=False)
    assert reader.read(make_prompt(), SamplingParams(max_tokens=8), asked, None).no_exit == reason
