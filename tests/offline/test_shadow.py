"""Shadow mode reports what would have happened and changes nothing; and an ``LLM`` ends when told to."""

import json
import multiprocessing

import psutil
import pytest

from tests.offline.conftest import prompt
from tests.offline.test_llm import QUESTIONS, VISUAL, greedy
from tests.support.server import poll
from vllm_sgl import cli
from vllm_sgl.telemetry.agreement import normalise


def test_answers_are_those_without_sgl(shadow_llm):
    prompts = [prompt(question, 1) for question in QUESTIONS]
    off = {"exit_threshold": "off"}
    ways = [greedy(sgl=off), greedy(sgl={"retention": 0.09, **off}), greedy()]
    plain = shadow_llm.generate(prompts, greedy(sgl={"enabled": 0}), use_tqdm=False)
    answers = [output.outputs[0].token_ids for output in plain]
    assert {output.sgl.decision for output in plain} == {"bypass"}
    for params, decision, kept in zip(ways, ("prune", "prune", "exit"), (39, 10, 0), strict=True):
        outputs = shadow_llm.generate(prompts, params, use_tqdm=False)
        assert [output.outputs[0].token_ids for output in outputs] == answers
        assert [output.sgl.decision for output in outputs] == [decision] * len(prompts)
        assert [output.sgl.kept_tokens for output in outputs] == [kept] * len(prompts)
        assert [output.sgl.visual_tokens for output in outputs] == [VISUAL] * len(prompts)
        assert all(output.sgl.importance[0].sum() > 0 for output in outputs)


def test_its_log_has_both_answers_and_calibrates_exits(shadow_llm, shadow_log, tmp_path):
    # Two models of random weights agree where nothing else is allowed.
    params = [greedy(max_tokens=1), greedy(max_tokens=3), greedy(max_tokens=2, allowed_token_ids=[70])]
    # Requests about one image count together, so each request has an image of its own.
    ways = [(question, one) for question in QUESTIONS * 2 for one in params]
    asked = [(prompt(question, seed), one) for seed, (question, one) in enumerate(ways)]
    outputs = shadow_llm.generate(*map(list, zip(*asked, strict=True)), use_tqdm=False)
    by_id = {output.request_id: output for output in outputs}
    poll(lambda: by_id.keys() <= {line["request"] for line in lines(shadow_log)}, what="the log")
    mine = [line for line in lines(shadow_log) if line["request"] in by_id]
    assert len(mine) == len(outputs)
    agreeing = 0
    for line in mine:
        output = by_id[line["request"]]
        assert line["answer"] == output.outputs[0].text
        assert line["prompt"].endswith(output.prompt[-40:])
        assert (line["decision"], line["score"]) == ("exit", output.sgl.score)
        assert line["seconds"] > line["guide_seconds"] > 0
        assert line["agrees"] == (normalise(line["answer"]) == normalise(line["small_answer"]))
        agreeing += line["agrees"]
    assert len(mine) / 3 <= agreeing < len(mine)

    kept = tmp_path / "log.jsonl"
    kept.write_text("".join(json.dumps(line) + "\n" for line in mine))
    out = tmp_path / "out"
    level = 1 - 0.25 * agreeing / len(mine)  # well above what exits lose
    arguments = ["calibrate", "--log", str(kept), "--max-loss", f"{level}", "--out", str(out)]
    assert cli.main(arguments) == 0
    found = json.loads((out / "calibration.json").read_text())
    assert found["chosen"]["retention"] == 1
    exits = [line for line in mine if line["score"] >= found["chosen"]["exit_threshold"]]
    tested = next(t for t in found["tests"] if t["exit_threshold"] == found["chosen"]["exit_threshold"])
    assert tested["exits"] == pytest.approx(len(exits) / len(mine))
    assert tested["lost_of_all"] == pytest.approx(sum(not line["agrees"] for line in exits) / len(mine))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_shutdown_ends_every_process(shadow_llm):
    engines = [psutil.Process(process.pid) for process in multiprocessing.active_children()]
    assert len(engines) == 2
    below = [process for engine in engines for process in engine.children(recursive=True)]
    shadow_llm.shutdown()
    shadow_llm.shutdown()
    assert not psutil.wait_procs([*engines, *below], timeout=30)[1]
