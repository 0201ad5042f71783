"""``vllm-sgl calibrate`` over real engines: the shipped pair in this process. A server: tests/serve."""

import json

from examples.demo import LARGE, SMALL
from tools import sign_reading
from vllm_sgl import cli

COUNT = 24
ARGUMENTS = {
    "enforce_eager": True, "dtype": "float32", "max_model_len": 1024, "kv_cache_memory_bytes": 128 << 20,
    "max_num_seqs": 16, "limit_mm_per_prompt": {"image": 2},
}  # fmt: skip


def records(out):
    lines = (out / "answers.jsonl").read_text().splitlines()[1:]
    return {(one["question"], one["way"]): one for one in map(json.loads, lines)}


def test_the_shipped_pair_in_this_process(tmp_path, capfd):
    data = sign_reading.write("test", COUNT, tmp_path / "signs")
    out = tmp_path / "out"
    line = [
        "calibrate", str(LARGE), "--small", str(SMALL), "--trust-remote-code", "--data", str(data), "--out",
        str(out), "--max-loss", "40%", "--retention", "0.35", "0.09", "--max-tokens", "16",
        "--exit-score", "paper", "product", "--large-args",
        json.dumps(ARGUMENTS),
    ]  # fmt: skip
    assert cli.main(line) == 0
    found = json.loads((out / "calibration.json").read_text())
    assert found["cost"] == "seconds of both models' passes"
    assert f"  {found['serve']}\n" in capfd.readouterr().out
    assert (out / "calibration.png").stat().st_size > 10_000
    by = records(out)
    assert len(by) == COUNT * 7
    ids = sorted({question for question, _ in by})
    right = {json.loads(text)["id"]: json.loads(text)["answers"] for text in data.read_text().splitlines()}
    # All of them read signs.
    for way, least in (("large", 20), ("top 0.35", 20), ("tiles 0.35", 20), ("small", 16)):
        assert sum(by[id, way]["answer"] in right[id] for id in ids) >= least, way
    for id in ids:
        total = by[id, "large"]["visual_tokens"]
        assert by[id, "large"]["kept_tokens"] == total
        assert by[id, "top 0.35"]["kept_tokens"] == int(0.35 * total)
        assert by[id, "small"]["decision"] == "exit"
        assert by[id, "top 0.09"]["encoded_tiles"] >= by[id, "tiles 0.09"]["encoded_tiles"]
    assert len({by[id, "small"]["score"] for id in ids}) > COUNT / 2
    assert all(0 < by[id, "small"]["score"] < 1 for id in ids)
