"""The scripts of ``examples/clients`` whose client is installed here, against a server: each shows the answer
and, as often as it asks, the report."""

import re
import sys

import pytest

from examples.clients import question, with_anthropic, with_openai
from tests.serve.asking import SHORT, SIZE
from tests.support.images import random_image
from tests.support.server import REQUEST_TIMEOUT, run_command


@pytest.fixture
def options(server, tmp_path):
    """What every script takes: the server, and an image of its own kind of question."""
    text, seed = SHORT
    image = tmp_path / "image.png"
    random_image(seed, *SIZE).save(image)
    return ["--server", f"http://127.0.0.1:{server.port}", "--image", str(image), "--question", text]


def shown(capsys):
    """(what was asked, its answer, its report) of each pair of lines."""
    lines = capsys.readouterr().out.splitlines()
    pairs = zip(lines[::2], lines[1::2], strict=True)
    return [(*answer.split(": ", 1), report.strip()) for answer, report in pairs]


def assert_same(found, names):
    assert [name for name, *_ in found] == names
    assert len({answer for _, answer, _ in found}) == 1, "every way to ask gives the same answer"
    for _, answer, report in found:
        assert answer.strip("'")
        values = dict(value.split(" ") for value in report.split(", "))
        assert values["decision"] == "prune"
        assert values.get("kept_tokens", values.get("kept")) == "39"
        assert float(values.get("guide_seconds", values.get("guide-seconds"))) > 0


def test_openai(options, capsys):
    with_openai.main(options)
    assert_same(shown(capsys), ["chat", "chat, headers", "chat stream", "response", "response stream"])


def test_anthropic(options, capsys):
    with_anthropic.main(options)
    assert_same(shown(capsys), ["message", "message, headers", "message stream"])


def test_vllm_bench(server, options):
    """Its tokenizer is the model's, whose name is its directory here."""
    command = [sys.executable, "-m", "examples.clients.with_vllm_bench", *options, "--requests", "4"]
    ended = run_command(command, REQUEST_TIMEOUT)
    assert ended.returncode == 0, ended.stdout[-3000:]
    counted = re.findall(r"(\d+) requests: decision=\"(\w+)\"", ended.stdout)
    assert sum(int(number) for number, _ in counted) >= 4  # vLLM asks once before it measures
    assert all(decision != "bypass" for _, decision in counted)


def test_what_clients_put_before_our_headers():
    headers = {"llm_provider-sgl-decision": "exit", "LLM_Provider-SGL-Kept": "0", "content-type": "x"}
    assert question.of_headers(headers, "llm_provider-sgl-") == {"decision": "exit", "kept": "0"}


def test_only_what_was_decided_in_between_is_shown(capsys):
    before = {'decision="prune",reason=""': 3.0, 'decision="exit",reason=""': 1.0}
    question.show_decisions(before, {**before, 'decision="prune",reason=""': 5.0, 'decision="bypass"': 1.0})
    assert capsys.readouterr().out.splitlines()[1:] == [
        "what the server decided:",
        '    2 requests: decision="prune",reason=""',
        '    1 requests: decision="bypass"',
    ]
