"""``--sgl-log`` and ``--sgl-shadow-log``: what a line says, and that no disk ever fails a request."""

import asyncio
import json
import re
import time
from argparse import Namespace
from pathlib import Path

import pytest
from vllm import SamplingParams
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind

from vllm_sgl.config import SGLConfig
from vllm_sgl.core import WIRE_FIELDS, Answer, Report
from vllm_sgl.request import client_request
from vllm_sgl.request.options import RequestOptions
from vllm_sgl.serve.flags import fold
from vllm_sgl.telemetry import request_log
from vllm_sgl.telemetry.request_log import RequestLog

PROMPT = {"prompt": "<image> What is it?", "prompt_token_ids": [1, 2, 3]}
SMALL = Answer("A cat.", (7, 8), (-0.1, -0.1), True, "stop")


def report(**more):
    return Report(
        "prune", "low_score", 100, 35, 4, 2, score=0.5, guide_seconds=0.1, **{"answer": SMALL, **more}
    )


def output(text, tokens, finish=None, index=0):
    one = CompletionOutput(index, text, tokens, None, None, finish_reason=finish)
    return RequestOutput("r", None, [1, 2, 3], None, [one], finish is not None)


async def asked_once(log, outputs, decided, params=None, made=None, fail=None, leave=False, prompt=PROMPT):
    """A request with these outputs; what its client was given."""
    config = SGLConfig(small="S", exit_threshold=0.9)
    made = made or client_request.Asked().request(1)

    async def answers():
        made.report = decided
        for one in outputs:
            yield one
        if fail is not None:
            raise fail

    params = params or SamplingParams()
    stream = log.following(answers(), prompt, params, "r-1", RequestOptions.parse(None, config), made)
    given = []
    async for one in stream:
        given.append(one)
        if leave:
            await stream.aclose()
    return given


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "requests.jsonl"


def log_of(**settings):
    found = RequestLog.of(SGLConfig(small="S", **{name: str(v) for name, v in settings.items()}))
    assert found is not None
    return found


async def test_a_line_says_what_became_of_a_request_and_nothing_of_its_text(path):
    log = log_of(log=path)
    outputs = [output("A", [1]), output("A dog", [1, 2], "stop")]
    assert await asked_once(log, outputs, report()) == outputs
    log.close()
    (line,) = lines(path)
    assert line.keys() >= set(WIRE_FIELDS)
    assert (line["decision"], line["reason"], line["score"], line["kept_tokens"]) == (
        "prune",
        "low_score",
        0.5,
        35,
    )
    assert (line["request"], line["retention"], line["policy"], line["exit_threshold"]) == (
        "r-1",
        0.35,
        "top",
        0.9,
    )
    assert (line["prompt_tokens"], line["answer_tokens"], line["finish_reason"]) == (3, 2, "stop")
    assert 0 <= line["seconds"] < 10
    assert line["time"].endswith("+00:00")
    assert "agrees" not in line
    for word in ("cat", "dog", "What"):
        assert word not in path.read_text()


@pytest.mark.parametrize(
    ("answers", "agrees"),
    [
        ([output("a ", [1]), output("CAT", [2], "stop")], True),
        ([output("a dog", [1, 2], "stop")], False),
    ],
)
async def test_a_shadow_s_line_says_whether_both_answers_agree(path, answers, agrees):
    """Also of an answer that is streamed piece by piece."""
    log = log_of(shadow_log=path, shadow=True)
    await asked_once(log, answers, report(), SamplingParams(output_kind=RequestOutputKind.DELTA))
    log.close()
    (line,) = lines(path)
    assert line["agrees"] is agrees
    assert line["answer_tokens"] == 2
    assert list(line["scores"]) == ["product", "lowest", "geometric_mean"], "no consistency pass ran"
    assert "cat" not in path.read_text().lower()


@pytest.mark.parametrize(
    ("decided", "params"),
    [
        (Report("bypass", "no_image"), SamplingParams()),
        (report(), SamplingParams(n=2)),
        (report(answer=Answer("A", (7,), (-0.1,), False, "length")), SamplingParams()),
    ],
    ids=["bypass", "two answers", "cut off"],
)
async def test_answers_that_cannot_be_compared(path, decided, params):
    log = log_of(shadow_log=path, shadow=True)
    await asked_once(log, [output("A", [1], "stop")], decided, params)
    log.close()
    assert lines(path)[0]["agrees"] is None


async def test_the_documented_line_has_every_field_but_the_report_s(path):
    log = log_of(shadow_log=path, shadow=True)
    await asked_once(log, [output("A", [1], "stop")], report())
    log.close()
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    (example,) = re.findall(r"```json\n(\{\"time\".*?\})\n```", page, re.DOTALL)
    assert json.loads(example).keys() == lines(path)[0].keys() - set(WIRE_FIELDS)


async def test_text_is_logged_where_it_is_asked_for(path, tmp_path):
    both = tmp_path / "shadow.jsonl"
    log = log_of(log=path, shadow_log=both, shadow=True, log_text=True)
    await asked_once(log, [output("Ein Hund, größer", [1, 2], "stop")], report())
    await asked_once(log, [output("Hund", [1], "stop")], None, prompt="text alone")
    log.close()
    (line, other), (shadow, _) = lines(path), lines(both)
    assert (line["prompt"], line["answer"]) == (PROMPT["prompt"], "Ein Hund, größer")
    assert "small_answer" not in line
    assert (shadow["small_answer"], shadow["agrees"]) == ("A cat.", False)
    assert (other["prompt"], other["decision"]) == ("text alone", None)


async def test_how_requests_end(path):
    log = log_of(log=path)
    await asked_once(log, [output("A", [1]), output("A", [1])], report(), leave=True)
    with pytest.raises(ValueError, match="broken"):
        await asked_once(log, [], None, fail=ValueError("broken"))
    log.close()
    assert [(line["finish_reason"], line["decision"]) for line in lines(path)] == [
        ("abort", "prune"), ("error", None),
    ]  # fmt: skip


async def test_the_steps_of_a_beam_search_are_one_line(path):
    log = log_of(log=path)
    made = client_request.Asked(beam_search=True).request(1)
    for _ in range(3):
        await asked_once(log, [output("A", [1], "length")], report(), made=made)
    log.close()
    assert len(lines(path)) == 1


async def test_files_are_rotated_by_size(path):
    log = log_of(log=path, log_size="4KiB")
    for _ in range(100):
        await asked_once(log, [output("A", [1], "stop")], report())
    log.close()
    kept = sorted(path.parent.iterdir())
    assert [one.name for one in kept] == [path.name, *(f"{path.name}.{i}" for i in range(1, 6))]
    assert all(one.stat().st_size <= 4096 for one in kept)
    assert all(line["request"] == "r-1" for one in kept for line in lines(one))


async def test_a_log_goes_on_where_an_earlier_one_ended(path):
    for _ in range(2):
        log = log_of(log=path)
        await asked_once(log, [output("A", [1], "stop")], report())
        log.close()
    assert len(lines(path)) == 2


async def test_what_ends_after_the_log_was_closed_has_its_line(path):
    log = log_of(log=path)
    await asked_once(log, [output("A", [1], "stop")], report())
    log.close()
    await asked_once(log, [output("B", [1], "stop")], report())
    assert len(lines(path)) == 2


async def test_a_disk_that_fails_fails_no_request_and_is_told_once(path, monkeypatch, warnings_logged):
    log = log_of(log=path)
    broken = True
    write = request_log.RotatingFileHandler.emit

    def emit(self, record):
        if not broken:
            return write(self, record)
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            self.handleError(record)

    monkeypatch.setattr(request_log.RotatingFileHandler, "emit", emit)

    async def ask():
        given = await asked_once(log, [output("A", [1], "stop")], report())
        assert given[-1].finished
        await until(lambda: log._files[0][0]._lines.empty())

    for _ in range(3):
        await ask()
    assert [record.levelname for record in warnings_logged] == ["ERROR"]
    assert (
        "cannot be written ([Errno 28] No space left on device); requests go on"
        in warnings_logged[0].getMessage()
    )
    broken = False
    await ask()
    broken = True
    await ask()
    log.close()
    assert len(warnings_logged) == 2
    assert len(lines(path)) == 1


async def test_a_disk_that_hangs_holds_nobody_up(path, monkeypatch, warnings_logged):
    monkeypatch.setattr(request_log, "_WAITING", 3)
    monkeypatch.setattr(request_log, "_PATIENCE", 0.1)
    gate = asyncio.Event()

    def emit(self, record):
        while not gate.is_set():
            time.sleep(0.01)

    monkeypatch.setattr(request_log.RotatingFileHandler, "emit", emit)
    log = log_of(log=path)
    began = time.monotonic()
    for _ in range(10):
        await asked_once(log, [output("A", [1], "stop")], report())
    log.close()
    gate.set()
    assert time.monotonic() - began < 5
    assert [record.getMessage() for record in warnings_logged] == [
        f"SGL: {path} takes no more lines; requests go on, and lines are lost"
    ]


async def until(holds):
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)  # the last line has left the queue, and is being written


BAD = [
    ({"log": "no/such/log.jsonl"}, "log: expected a file that can be written, in a directory that exists; "
     r"received 'no/such/log.jsonl' \(No such file or directory\)"),
    ({"log": "."}, r"log: expected a file that can be written.*received '\.' \(Is a directory\)"),
    ({"shadow_log": "log.jsonl"}, r"shadow.log: expected .*shadow beside it, .*received it alone"),
    ({"log": "l.jsonl", "shadow_log": "l.jsonl", "shadow": True}, "expected two files, received 'l.jsonl'"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "words"), BAD)
def test_what_cannot_work_is_refused_at_start(tmp_path, monkeypatch, settings, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^sgl_.*{words}"):
        RequestLog.of(SGLConfig(small="S", **settings))
    with pytest.raises(ValueError, match=f"^--sgl-.*{words}"):
        fold(Namespace(sgl_small="S", **{f"sgl_{name}": value for name, value in settings.items()}))


def test_no_log_unless_somebody_asks():
    assert RequestLog.of(SGLConfig(small="S")) is None
    assert SGLConfig.parse({"small": "S", "log": "off"}).log is None
