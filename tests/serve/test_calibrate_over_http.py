"""``vllm-sgl calibrate --base-url`` asks a running server."""

import json

import pytest

from tests.serve.asking import ask
from tests.support.images import QUESTIONS, random_image
from vllm_sgl import cli
from vllm_sgl.evaluate import backends
from vllm_sgl.evaluate.errors import UsageError


def records(out):
    lines = (out / "answers.jsonl").read_text().splitlines()[1:]
    return {(one["question"], one["way"]): one for one in map(json.loads, lines)}


def test_a_server_and_what_it_does_under_the_chosen_setting(server, tmp_path):
    """What was put together from answers is what the server answers."""
    lines = []
    for number in range(12):
        random_image(number, 300, 200).save(tmp_path / f"{number}.png")
        asked = {"id": str(number), "image": f"{number}.png", "question": QUESTIONS[number % 8]}
        lines.append(json.dumps(asked) + "\n")
    data, out = tmp_path / "questions.jsonl", tmp_path / "out"
    data.write_text("".join(lines))
    line = [
        "calibrate", "--base-url", f"http://127.0.0.1:{server.port}/v1", "--data", str(data),
        "--out", str(out), "--max-loss", "97%", "--retention", "0.35", "--policy", "top", "--max-tokens", "6",
        "--no-picture", "--exit-score", "paper", "product",
    ]  # fmt: skip
    assert cli.main(line) == 0
    whole = (out / "answers.jsonl").read_text()
    (out / "answers.jsonl").write_text(whole[: len(whole) // 2])  # cut off in the middle of a line
    assert cli.main(line) == 0
    again = (out / "answers.jsonl").read_text()
    assert len(again.splitlines()) == len(whole.splitlines()) == 1 + 12 * 4
    by = records(out)
    found = json.loads((out / "calibration.json").read_text())
    assert "disagreement" in found["loss"]
    exits = 0
    for number in range(12):
        completion = ask(server, QUESTIONS[number % 8], number, max_tokens=6, sgl=found["chosen"])
        expected = completion.sgl["decision"] == "exit"
        score = found["chosen"]["exit_score"]
        small = by[str(number), "small" if score == "paper" else f"small {score}"]
        assert (small["score"] >= float(found["chosen"]["exit_threshold"])) == expected
        assert completion.sgl["consistency"] is None or score == "paper"
        way = "small" if expected else "large" if found["chosen"]["retention"] == 1 else "top 0.35"
        assert completion.choices[0].message.content == by[str(number), way]["answer"]
        exits += expected
    chosen = [t for t in found["tests"] if t.items() >= found["chosen"].items()]
    assert chosen[0]["exits"] == pytest.approx(exits / 12)


@pytest.mark.parametrize("base", ["/v1", "/v1/"])
def test_a_server_that_would_answer_otherwise_is_refused(server, tmp_path, monkeypatch, base):
    endpoint = backends.Endpoint(f"http://127.0.0.1:{server.port}{base}", None)
    endpoint.refuse_other_than_guided()
    assert endpoint.model == server.model
    opened = backends.urlopen

    class Shadow:
        def __enter__(self):
            self.headers = dict(opened(f"http://127.0.0.1:{server.port}/health").headers)
            assert self.headers["sgl-shadow"] == "off"
            self.headers["sgl-shadow"] = "on"
            return self

        def __exit__(self, *exception):
            pass

    monkeypatch.setattr(backends, "urlopen", lambda url, timeout: Shadow())
    with pytest.raises(UsageError, match="runs with --sgl-shadow, so every answer is the large"):
        endpoint.refuse_other_than_guided()
    with pytest.raises(UsageError, match="no OpenAI-compatible server there"):
        backends.Endpoint("http://127.0.0.1:9/v1", None)
