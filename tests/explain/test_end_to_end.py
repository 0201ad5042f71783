"""``vllm-sgl explain`` as a user runs it, over the tiny pair: its numbers are those of transformers."""

import json
import math
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.images import QUESTIONS, random_image
from tests.support.rendering import chat_prompt, render
from tests.support.server import run_started
from tools.reference import confidence, reference, select
from vllm_sgl import __version__
from vllm_sgl.core import Seen, VisualItem
from vllm_sgl.prune.top import TopImportance

ROOT = Path(__file__).parents[2]
SIZES = [(300, 200), (112, 100)]  # 3 x 2 tiles and a thumbnail; one tile without
COUNTS = [112, 16]
RETENTIONS = (0.35, 0.1)
MAX_TOKENS = 8
QUESTION = QUESTIONS[0]
LARGE_ARGS = {
    "dtype": "float32", "max_model_len": 640, "kv_cache_memory_bytes": 64 << 20, "max_num_seqs": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def images():
    return [random_image(seed, *size) for seed, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def explained(qwen2_pair, images, tmp_path_factory):
    """(the JSON on standard output, the picture's path)"""
    small, large = qwen2_pair
    folder = tmp_path_factory.mktemp("explain")
    names = []
    for number, image in enumerate(images):
        names.append(str(folder / f"{number}.png"))
        image.save(names[-1])
    command = [
        sys.executable,
        "-m",
        "vllm_sgl",
        "explain",
        str(large),
        "--small",
        str(small),
        *names,
        QUESTION,
    ]
    command += ["--trust-remote-code", "--large-args", json.dumps(LARGE_ARGS)]
    command += ["--max-tokens", str(MAX_TOKENS), "--exit-threshold", "0.05"]
    command += [word for share in RETENTIONS for word in ("--retention", str(share))]
    command += ["-o", str(folder / "out.png"), "--json", "-"]
    # No fork of what has vLLM imported: its first import decides whether it logs to standard output.
    done = run_started(command, 500, apart=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout), folder / "out.png"


@pytest.fixture(scope="module")
def outside(qwen2_pair, images):
    """(small, large, rendered question), without vLLM."""
    rendered = render(qwen2_pair[0], chat_prompt(QUESTION, len(images)), images)
    return *map(reference, qwen2_pair), rendered


def test_images_and_importance(explained, outside):
    found, _ = explained
    small, _, rendered = outside
    assert [(i["width"], i["height"]) for i in found["images"]] == SIZES
    grids = [(i["columns"], i["rows"], i["thumbnail"], i["tokens_per_tile"]) for i in found["images"]]
    assert grids == [(3, 2, True, 16), (1, 1, False, 16)]
    assert [i["visual_tokens"] for i in found["images"]] == COUNTS
    assert [i["tiles"] for i in found["images"]] == [7, 1]
    assert [len(i["boxes"]) for i in found["images"]] == COUNTS
    guided = small.generate(*rendered, MAX_TOKENS)
    expected = small.importance(*rendered, guided.tokens)
    for image, importance in zip(found["images"], expected, strict=True):
        torch.testing.assert_close(torch.tensor(image["importance"]), importance, rtol=1e-3, atol=1e-5)


def test_kept_tokens_are_the_most_important(explained):
    found, _ = explained
    importance = [torch.tensor(image["importance"]) for image in found["images"]]
    assert [entry["retention"] for entry in found["pruned"]] == list(RETENTIONS)
    for entry in found["pruned"]:
        assert entry["kept_tokens"] == max(1, math.floor(entry["retention"] * sum(COUNTS)))
        assert entry["kept_tokens"] == sum(map(len, entry["kept"]))
        seen = [Seen(VisualItem("image", len(part)), part) for part in importance]
        kept = TopImportance().select(seen, entry["retention"])
        assert entry["kept"] == [indices.tolist() for indices in kept]
        assert entry["open_tiles"] == [sorted({i // 16 for i in indices.tolist()}) for indices in kept]


def test_answers_are_those_of_transformers(explained, outside):
    found, _ = explained
    small, large, rendered = outside
    importance = small.importance(*rendered, small.generate(*rendered, MAX_TOKENS).tokens)

    def said(model, keep=None):
        tokens = model.generate(*rendered, MAX_TOKENS, keep=keep).tokens
        text = model.tokenizer.decode(tokens, skip_special_tokens=True)
        return {"text": text, "tokens": len(tokens), "finished": tokens[-1] == model.eos_token_id}

    assert found["small_answer"] == said(small)
    assert found["large_answer"] == said(large)
    for entry in found["pruned"]:
        assert entry["answer"] == said(large, select(importance, entry["retention"]))


def test_score_and_decision(explained, outside):
    found, _ = explained
    small, _, rendered = outside
    guided = small.generate(*rendered, MAX_TOKENS)
    assert found["confidence"] == pytest.approx(confidence(guided.logprobs), rel=1e-3)
    assert found["consistency"] == pytest.approx(small.consistency(*rendered, guided.tokens), rel=1e-2)
    assert found["score"] == (found["confidence"] + found["consistency"]) / 2
    assert found["exit_threshold"] == 0.05
    assert found["score"] > 0.05
    assert (found["decision"], found["reason"]) == ("exit", None)
    assert (found["positions"], found["query_rows"]) == ("original", "last_turn+generated")


def test_the_picture_is_there(explained):
    _, path = explained
    shown = np.asarray(Image.open(path).convert("RGB"))
    assert shown.shape[1] == 2100
    assert 600 < shown.shape[0] < 3200
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 1000


def test_the_console_script_is_installed():
    script = Path(sysconfig.get_path("scripts"), "vllm-sgl")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"vllm-sgl {__version__}\n"
