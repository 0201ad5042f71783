"""The engine client over made-up engines: what it counts, refuses, aborts and admits."""

import asyncio
import math
from types import SimpleNamespace

import pytest
import torch
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.outputs import CompletionOutput, RequestOutput

from tests.support.prompts import make_prompt
from vllm_sgl.config import SGLConfig
from vllm_sgl.core import Answer, GuideResult, Reason
from vllm_sgl.engine import client
from vllm_sgl.engine.client import SGLAsyncLLM
from vllm_sgl.engine.in_flight import Guiding
from vllm_sgl.engine.shutdown import Shutdown
from vllm_sgl.host.start.async_llm import AsyncLLM
from vllm_sgl.pipeline import Pipeline
from vllm_sgl.prune.late import given_prompt
from vllm_sgl.prune.registry import policy
from vllm_sgl.request import client_request
from vllm_sgl.request.facts import FactsReader

PROMPT_TOKENS = 15  # of make_prompt()


class Guide:
    """Sure of its answer; waits while `gate` is closed."""

    context = 1024
    alive = True

    def __init__(self):
        self.gate = asyncio.Event()
        self.gate.set()
        self.looked, self.aborted = [], []

    async def look(self, request, answer_tokens):
        self.looked.append(request.id)
        await self.gate.wait()
        importance = [torch.rand(count) for count in request.visual_tokens]
        return GuideResult(importance, Answer("small", (1,), (math.log(0.99),), True, "stop"))

    async def confirm(self, request, result, share):
        return 0.99

    async def abort(self, request_id):
        self.aborted.append(request_id)


class Full(Exception):
    """vLLM's 503."""


class Processor:
    """Refuses what vLLM's would for the large engine."""

    def process_inputs(self, request_id, prompt, params, **more):
        if params.thinking_token_budget is not None:
            raise VLLMValidationError("thinking_token_budget is set but reasoning_config is not configured")


class Large:
    """vLLM's engine client, as far as ours stands on it."""

    def __init__(self):
        self.asked, self.aborted, self.limit, self.tokens = [], [], None, 0

    def install(self, monkeypatch):
        large = self

        async def generate(self, prompt, params, request_id, **kwargs):
            self.check_admission(params.n, request_id)
            large.asked.append(request_id)
            text = CompletionOutput(0, "large", [1], None, None, finish_reason="stop")
            yield RequestOutput(request_id, None, [1], None, [text], True)

        def check_admission(self, n=1, request_id=None):
            if large.limit is not None and self.get_num_queued_tokens() >= large.limit:
                raise Full

        async def abort(self, request_id, internal=False):
            large.aborted += request_id

        async def get_supported_tasks(self):
            return ("generate",)

        replaced = (generate, check_admission, abort, get_supported_tasks)
        for function in replaced:
            monkeypatch.setattr(AsyncLLM, function.__name__, function)
        monkeypatch.setattr(AsyncLLM, "get_num_queued_tokens", lambda self: large.tokens)
        monkeypatch.setattr(AsyncLLM, "get_num_unfinished_requests", lambda self: 0)
        monkeypatch.setattr(AsyncLLM, "__del__", lambda self: None)


@pytest.fixture
def large(monkeypatch):
    large = Large()
    large.install(monkeypatch)
    return large


class Counted:
    """The metrics."""

    def __init__(self):
        self.reports = []

    def observe(self, report):
        self.reports.append((report.decision, report.visual_tokens))


@pytest.fixture
def counted(monkeypatch):
    counted = Counted()
    monkeypatch.setattr(client, "metrics", lambda: counted)
    return counted


@pytest.fixture
async def engine(large, counted):
    """Exits early wherever nothing rules it out."""
    engine = SGLAsyncLLM.__new__(SGLAsyncLLM)
    engine._shutdown = Shutdown()
    engine.sgl_config = SGLConfig(small="S", exit_threshold=0.5, retention=0.5)
    engine.input_processor = Processor()
    engine._guide, engine._guiding = Guide(), Guiding()
    engine._reader = FactsReader({"image": "pixel_values_flat"}, 1024)
    engine.renderer = SimpleNamespace(tokenizer=None)
    engine.vllm_config = SimpleNamespace(structured_outputs_config=SimpleNamespace(reasoning_parser=""))
    pipeline = Pipeline(engine.sgl_config, engine._guide, policy, given_prompt)

    async def ready():
        return pipeline

    engine._ready = asyncio.create_task(ready())
    return engine


async def answer(engine, id="r", prompt=None, about=None, **params):
    """(text, report) of a client's request, through HTTP where it says what was asked. vLLM's own output of
    an aborted request has no report."""
    prompt = make_prompt() if prompt is None else prompt
    with client_request.asking(about):
        outputs = engine.generate(prompt, SamplingParams(**params), id)
    async with asyncio.timeout(20):  # who is let in by mistake would wait for ever
        final = [output async for output in outputs][-1]
    return final.outputs[0].text, getattr(final, "sgl", None)


TEXT = {"type": "token", "prompt_token_ids": [1, 2]}


async def test_every_conversation_is_counted_and_has_its_report(engine, counted):
    about = client_request.Asked()
    many = [answer(engine, f"r-{i}", prompt, about) for i, prompt in enumerate((None, TEXT, None))]
    reports = [report for _, report in await asyncio.gather(*many)]
    assert [made.report for made in about.requests] == [report.without_tensors() for report in reports]
    assert reports[0].importance is not None
    assert [report.decision for report in reports] == ["exit", "bypass", "exit"]
    assert sorted(counted.reports) == [("bypass", 0), ("exit", 8), ("exit", 8)]


async def test_the_steps_of_a_beam_search_are_counted_once(engine, counted):
    about = client_request.Asked(beam_search=True)
    for i in range(4):
        assert (await answer(engine, f"r-{i}", None, about))[0] == "large"
    assert counted.reports == [("bypass", 8)]
    assert about.report.reason == Reason.BEAM_SEARCH


@pytest.mark.parametrize(
    ("about", "reason"),
    [(None, Reason.UNSEEN), (client_request.Asked(tools=True), Reason.TOOLS)],
    ids=["gRPC", "HTTP"],
)
async def test_a_request_that_may_have_tools_does_not_exit(engine, about, reason):
    text, report = await answer(engine, about=about)
    assert (text, report.decision, report.reason) == ("large", "prune", reason)


@pytest.mark.parametrize("adapter", [None, "signs"])
async def test_the_guide_is_told_the_adapter(engine, adapter):
    """Follow-ups keep adapters apart, as the large engine's prefix cache does."""
    look, told = engine._guide.look, []

    async def noting(request, answer_tokens):
        told.append(request.lora)
        return await look(request, answer_tokens)

    engine._guide.look = noting
    lora = adapter and SimpleNamespace(lora_name=adapter)
    outputs = engine.generate(make_prompt(), SamplingParams(), "r", lora_request=lora)
    assert [output.outputs[0].text async for output in outputs] == ["large"]
    assert told == [adapter]


async def test_what_only_the_large_engine_checks_is_checked_before_an_exit(engine, counted):
    assert (await answer(engine, about=client_request.Asked()))[0] == "small"
    looked = list(engine._guide.looked)
    with pytest.raises(VLLMValidationError, match="reasoning_config is not configured"):
        await answer(engine, about=client_request.Asked(), thinking_token_budget=1)
    assert engine._guide.looked == looked
    assert len(counted.reports) == 1


async def test_a_boolean_is_refused_although_vllm_made_it_a_number(engine):
    about = client_request.Asked(keys={"sgl_retention": True})
    with pytest.raises(VLLMValidationError, match=r"sgl_retention: expected a number in .* received True"):
        await answer(engine, about=about, extra_args={"sgl_retention": 1})


@pytest.mark.parametrize(
    ("about", "named"),
    [
        (client_request.Asked(keys={"sgl_retention": 7}), "sgl_retention"),
        (client_request.Asked(keys={"SGL_retention": 0.5}), "SGL_retention"),
        (client_request.Asked(headers=[("sgl-retention", "7")]), "sgl-retention"),
    ],
)
async def test_bad_settings_are_refused_before_a_response_starts(engine, about, named):
    """A stream of the Responses API has its status before the engine is given anything."""
    with client_request.asking(about), pytest.raises(VLLMValidationError, match=f"^{named}: "):
        engine.check_admission()
    with client_request.asking(
        client_request.Asked(keys={"sgl_retention": 0.5}, headers=[("sgl-retention", "0.5")])
    ):
        engine.check_admission()


async def test_a_request_has_the_settings_of_its_profile_and_its_headers(engine):
    engine.sgl_config = SGLConfig(small="S", retention=0.5, profiles={"fast": {"retention": 0.25}})
    kept = {}
    for profile, headers in ((None, []), ("fast", []), ("fast", [("sgl-retention", "0.75")])):
        about = client_request.Asked(profile=profile, headers=headers)
        _, report = await answer(engine, about=about)
        kept[profile, len(headers)] = (report.profile, report.kept_tokens)
    assert kept == {(None, 0): (None, 4), ("fast", 0): ("fast", 2), ("fast", 1): ("fast", 6)}
    _, report = await answer(engine, about=client_request.Asked(), extra_args={"sgl_profile": "fast"})
    assert (report.profile, report.kept_tokens) == ("fast", 2)
    _, report = await answer(engine, prompt=TEXT, about=client_request.Asked(profile="fast"))
    assert (report.decision, report.profile) == ("bypass", "fast")


async def waiting(engine, *ids):
    """Requests that are with the guide."""
    engine._guide.gate.clear()
    tasks = [asyncio.create_task(answer(engine, id, about=client_request.Asked())) for id in ids]
    while len(engine._guide.looked) < len(ids):
        await asyncio.sleep(0)
    return tasks


async def test_abort_by_id_finds_a_request_wherever_it_waits(engine, large):
    """The guide does not answer to it, as one that has the request in neither of its passes."""
    gone, stays = await waiting(engine, "gone", "stays")
    await engine.abort("gone")
    assert await gone == ("", None)
    assert engine._guide.aborted == large.aborted == ["gone"]
    engine._guide.gate.set()
    assert (await stays)[0] == "small"
    assert large.asked == []


async def test_what_waits_for_the_guide_counts_as_queued(engine, large):
    large.tokens = 100
    tasks = await waiting(engine, "a", "b")
    assert engine.get_num_unfinished_requests() == 2
    assert engine.get_num_queued_tokens() == 100 + 2 * PROMPT_TOKENS
    engine._guide.gate.set()
    await asyncio.gather(*tasks)
    assert (engine.get_num_unfinished_requests(), engine.get_num_queued_tokens()) == (0, 100)


async def test_a_full_queue_refuses_before_the_guide_works_and_never_after(engine, large):
    large.limit = PROMPT_TOKENS + 1
    engine.sgl_config = engine.sgl_config.model_copy(update={"exit_threshold": None})
    tasks = await waiting(engine, "a", "b")  # the second one comes while 15 tokens wait
    with pytest.raises(Full):
        await answer(engine, "c", about=client_request.Asked())
    with pytest.raises(Full):  # nor is anything else let in
        await answer(engine, "text", TEXT, client_request.Asked())
    assert engine._guide.looked == ["a", "b"]
    large.tokens = 1000  # others have come meanwhile
    engine._guide.gate.set()
    assert [text for text, _ in await asyncio.gather(*tasks)] == ["large", "large"]
