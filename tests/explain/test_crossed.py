"""``vllm-sgl explain`` of a pair across families: everything that it shows is in the large model's visual
tokens, whatever the small model sees. The shipped reader of tiles guides the one of whole images.
"""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.crossed.__main__ import NATIVE
from examples.demo import SMALL
from tools import sign_reading
from vllm_sgl import cli

#: A question that the large model has right.
NUMBER = 0
#: One visual token of the large model, pixels.
SIDE = 28
RETENTIONS = (0.35, 0.18)
ARGUMENTS = {
    "dtype": "float32", "max_model_len": 1024, "kv_cache_memory_bytes": 64 << 20, "max_num_seqs": 8,
    "limit_mm_per_prompt": {"image": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def question(tmp_path_factory):
    """A line of the questions, with the paths of its images."""
    data = sign_reading.write("test", NUMBER + 1, tmp_path_factory.mktemp("signs"))
    found = json.loads(data.read_text().splitlines()[NUMBER])
    return {**found, "images": [str(data.parent / name) for name in found["images"]]}


@pytest.fixture(scope="module")
def explained(question, tmp_path_factory):
    """(the JSON, the picture's path)"""
    folder = tmp_path_factory.mktemp("crossed")
    line = ["explain", str(NATIVE), "--small", str(SMALL), *question["images"], question["question"]]
    line += ["--trust-remote-code", "--large-args", json.dumps(ARGUMENTS), "--max-tokens", "8"]
    line += [word for share in RETENTIONS for word in ("--retention", str(share))]
    line += ["--exit-threshold", "0.5", "-o", str(folder / "out.png"), "--json", str(folder / "out.json")]
    assert cli.main(line) == 0
    return json.loads((folder / "out.json").read_text()), folder / "out.png"


def test_boxes_are_the_large_model_s(explained, question):
    found, _ = explained
    for image, path in zip(found["images"], question["images"], strict=True):
        with Image.open(path) as opened:
            assert (image["width"], image["height"]) == opened.size
        assert (image["columns"], image["rows"], image["tiles"], image["thumbnail"]) == (1, 1, 1, False)
        across, down = (round(side / SIDE) for side in opened.size)
        assert image["visual_tokens"] == len(image["boxes"]) == len(image["importance"]) == across * down
        boxes = np.array(image["boxes"])
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        assert areas.sum() == pytest.approx(opened.width * opened.height)


def test_importance_lies_on_the_answer(explained, question):
    found, _ = explained
    ((number, *sign),) = question["answer_boxes"]
    boxes = np.array(found["images"][number]["boxes"])
    importance = np.array(found["images"][number]["importance"])
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((middle >= sign[:2]) & (middle < sign[2:])).all(axis=1)
    assert 0 < inside.sum() < len(inside) / 2
    assert (importance > 0).all()
    assert importance[inside].mean() > 2 * importance[~inside].mean()


def test_what_is_kept_and_answered(explained, question):
    found, _ = explained
    total = sum(image["visual_tokens"] for image in found["images"])
    importance = np.concatenate([image["importance"] for image in found["images"]])
    for share, entry in zip(RETENTIONS, found["pruned"], strict=True):
        assert entry["kept_tokens"] == int(share * total)
        kept = [
            np.isin(np.arange(image["visual_tokens"]), one)
            for image, one in zip(found["images"], entry["kept"], strict=True)
        ]
        chosen = np.concatenate(kept)
        assert importance[chosen].min() >= importance[~chosen].max()
        assert chosen.sum() == entry["kept_tokens"]
        assert entry["open_tiles"] == [[0] if one else [] for one in entry["kept"]]
    assert found["large_answer"]["text"] in question["answers"]
    assert found["pruned"][0]["answer"]["text"] in question["answers"]
    assert found["small_answer"]["finished"]


def test_score_and_picture(explained):
    found, picture = explained
    assert 0 < found["confidence"] < 1
    assert found["score"] == (found["confidence"] + found["consistency"]) / 2
    assert found["decision"] == ("exit" if found["score"] >= 0.5 else "prune")
    shown = np.asarray(Image.open(picture).convert("RGB"))
    assert shown.shape[1] == 2100
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 1000
