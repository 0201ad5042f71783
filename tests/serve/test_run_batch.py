"""``vllm run-batch``, as the example runs it: what its lines ask for is known although they come through no
HTTP server, their profiles included, and each has its report."""

import json
import sys

from tests.serve.asking import SHORT, TOOLS, VISUAL, content
from tests.support.server import COMMON_FLAGS, START_TIMEOUT, run_command


def test_lines_have_reports_and_tools_do_not_exit(qwen2_pair, tmp_path):
    small, large = map(str, qwen2_pair)
    question, seed = SHORT
    about = {"model": large, "max_tokens": 12, "temperature": 0}
    image = [{"role": "user", "content": content(question, (seed,))}]
    bodies = {
        "image": {**about, "messages": image},
        "forced": {**about, "messages": image, "max_tokens": 40, "ignore_eos": True},
        "tools": {**about, "messages": image, "tools": TOOLS},
        "text": {**about, "messages": [{"role": "user", "content": "Who?"}]},
        "bad": {**about, "messages": image, "vllm_xargs": {"SGL_retention": 1}},
        "profile": {**about, "messages": image, "model": f"{large}:half"},
        "unknown": {**about, "messages": image, "model": f"{large}:other"},
    }
    lines = [
        json.dumps({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body})
        for id, body in bodies.items()
    ]
    asked, answered = tmp_path / "asked.jsonl", tmp_path / "answered.jsonl"
    asked.write_text("\n".join(lines))
    ended = run_command(
        [
            sys.executable, "-m", "examples.clients.with_run_batch", large, "--small", small,
            "--input", str(asked), "--output", str(answered), *COMMON_FLAGS,
            "--enable-auto-tool-choice", "--tool-call-parser=hermes", "--sgl-break-even=off",
            "--sgl-follow-ups=off",
            "--sgl-exit-threshold=0", '--sgl-profile=half={"retention": 0.5, "exit_threshold": "off"}',
        ],
        START_TIMEOUT,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-3000:]
    outputs = {output["custom_id"]: output for output in map(json.loads, answered.read_text().splitlines())}
    reports = {id: (outputs[id]["response"]["body"] or {}).get("sgl") for id in bodies}
    found = {id: (report["decision"], report["reason"]) for id, report in reports.items() if report}
    assert found == {
        "image": ("exit", None), "forced": ("prune", "forced_length"), "tools": ("prune", "tools"),
        "text": ("bypass", "no_image"), "profile": ("prune", None),
    }  # fmt: skip
    assert reports["tools"]["visual_tokens"] == VISUAL
    assert "SGL_retention: unknown key" in json.dumps(outputs["bad"]["error"])
    assert (reports["profile"]["profile"], reports["profile"]["kept_tokens"]) == ("half", VISUAL // 2)
    assert outputs["profile"]["response"]["body"]["model"] == f"{large}:half"
    assert outputs["unknown"]["response"]["status_code"] == 404
    for id in found:
        answer = outputs[id]["response"]["body"]["choices"][0]["message"]["content"]
        assert f"{id}: {answer!r}" in ended.stdout
    assert f"    decision prune, reason tools, visual_tokens {VISUAL}, kept_tokens 39" in ended.stdout
