"""The lines of ``vllm run-batch``: what each asks for is known, and its report stands in its output."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from vllm.entrypoints.launchers import run_batch as vllms
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse

from vllm_sgl.core import Report
from vllm_sgl.host.patch import unwrap
from vllm_sgl.host.request import run_batch
from vllm_sgl.request import client_request
from vllm_sgl.serve import batch_file

REPORT = Report("prune", visual_tokens=8, kept_tokens=3)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


@pytest.fixture
def installed():
    run_batch.install(batch_file.reporting)
    yield
    unwrap(vllms, "run_request")


def line(id="one", **body):
    messages = [{"role": "user", "content": "Who?"}]
    request = {"custom_id": id, "method": "POST", "url": "/v1/chat/completions"}
    text = json.dumps({**request, "body": {"model": "M", "messages": messages, **body}})
    return vllms.BatchRequestInput.model_validate_json(text)


class Serving:
    """vLLM's handler of a chat request, which makes one request of the engine."""

    def __init__(self, report=REPORT):
        self.report, self.seen = report, {}

    async def __call__(self, body):
        about = client_request.current.get()
        self.seen[body.max_completion_tokens] = (about.tools, about.beam_search, about.seen)
        about.request(1).report = self.report
        await asyncio.sleep(0)
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        choice = {"index": 0, "message": {"role": "assistant", "content": "I"}, "finish_reason": "stop"}
        return ChatCompletionResponse(model="M", choices=[choice], usage=usage)


def run(serving, *lines):
    """The lines of the output file."""
    tracker = SimpleNamespace(completed=lambda: None)

    async def together():
        return await asyncio.gather(*(vllms.run_request(serving, request, tracker) for request in lines))

    return [json.loads(output.model_dump_json()) for output in asyncio.run(together())]


def test_every_line_has_its_report(installed):
    one, two = run(Serving(), line("one"), line("two"))
    assert (one["custom_id"], two["custom_id"]) == ("one", "two")
    for output in (one, two):
        assert output["response"]["body"]["sgl"] == REPORT.as_dict()
        assert output["response"]["body"]["choices"][0]["message"]["content"] == "I"


def test_what_the_lines_ask_for_is_known_to_each_alone(installed):
    serving = Serving()
    asking = (
        {}, {"tools": [TOOL]}, {"tools": [TOOL], "tool_choice": "none"}, {"use_beam_search": True},
        {"chat_template_kwargs": {"tools": [TOOL]}},
    )  # fmt: skip
    run(serving, *(line(max_completion_tokens=i, **body) for i, body in enumerate(asking, 1)))
    assert serving.seen == {
        1: (False, False, True), 2: (True, False, True), 3: (False, False, True), 4: (False, True, True),
        5: (True, False, True),
    }  # fmt: skip
    assert client_request.current.get() is None


def test_a_line_without_a_report_or_with_an_error_stays(installed):
    async def failing(body):
        raise ValueError("bad")

    (output,) = run(Serving(report=None), line())
    assert "sgl" not in output["response"]["body"]
    (output,) = run(failing, line())
    assert output["response"]["body"] is None
    assert output["error"]["error"]["code"] == 400


def test_other_commands_load_nothing(monkeypatch):
    monkeypatch.delitem(run_batch.sys.modules, vllms.__name__)
    run_batch.install(batch_file.reporting)
    assert vllms.__name__ not in run_batch.sys.modules
