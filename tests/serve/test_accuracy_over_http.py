"""`python -m benchmarks.accuracy --base-url` asks a running server."""

import json

from benchmarks.accuracy import __main__ as command
from tests.support.question_file import write_questions


def test_methods_that_need_request_keys_only(server, qwen2_pair, tmp_path):
    small, large = map(str, qwen2_pair)
    questions = write_questions(tmp_path)
    assert not command.main([
        large, "--small", small, "--data", str(questions), "--out", str(tmp_path / "out"), "--limit", "3",
        "--max-tokens", "4", "--retention", "1", "0.35", "--base-url", f"http://127.0.0.1:{server.port}/v1",
    ])  # fmt: skip
    rows = json.loads((tmp_path / "out" / "accuracy.json").read_text())["rows"]
    assert [row["setting"]["method"] for row in rows] == ["full", "small", "sgp", "downsample"]
    assert [row["n"] for row in rows] == [3] * 4
    assert [row["visual_tokens"] for row in rows[:2]] == [(112 + 96 + 112) / 3, 0]
