"""``vllm-sgl explain`` of a question about a video file and an image, over a tiny Qwen2.5-VL pair."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.support.images import random_image, random_video, video_file
from tools.tiny_families import FAMILIES, build_pair
from vllm_sgl import cli

#: Of the file: two make one moment of 4 x 3 tokens.
FRAMES, FPS = 12, 4
MOMENTS, EACH = FRAMES // 2, 4 * 3
LARGE_ARGS = {
    "dtype": "float32", "max_model_len": 640, "kv_cache_memory_bytes": 64 << 20, "max_num_seqs": 8,
    "media_io_kwargs": {"video": {"fps": FPS}},  # vLLM would take two a second
}  # fmt: skip


def test_a_video_is_explained(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")
    small, large = build_pair(FAMILIES["qwen2_5_vl"], tmp_path)
    random_image(0, 112, 84).save(tmp_path / "image.png")
    clip = video_file(tmp_path / "clip.mp4", random_video(1, 112, 84, FRAMES), FPS)
    words = ["explain", large, "--small", small, clip, tmp_path / "image.png", "Who?"]
    words += ["--retention", "0.2", "--max-tokens", "4", "--large-args", json.dumps(LARGE_ARGS)]
    assert cli.main([*map(str, words), "-o", str(tmp_path / "out.png"), "--json", "-"]) == 0
    found = json.loads(capfd.readouterr().out)
    video, image = found["images"]
    assert (video["path"], image["path"]) == (str(clip), str(tmp_path / "image.png"))
    assert (video["frames"], video["tiles"], video["tokens_per_tile"]) == (MOMENTS, MOMENTS, EACH)
    assert (image["frames"], image["tiles"]) == (None, 1)
    assert video["visual_tokens"] == len(video["importance"]) == len(video["boxes"]) == MOMENTS * EACH
    assert (video["width"], video["height"]) == (112, 84)
    assert video["boxes"][EACH - 1] == video["boxes"][-1] == [84, 56, 112, 84]
    (pruned,) = found["pruned"]
    assert pruned["kept_tokens"] == sum(map(len, pruned["kept"])) == int(0.2 * (MOMENTS + 1) * EACH)
    assert pruned["open_tiles"][0] == sorted({index // EACH for index in pruned["kept"][0]})
    ranked = np.argsort(-np.concatenate([video["importance"], image["importance"]]), kind="stable")
    kept = [*pruned["kept"][0], *(MOMENTS * EACH + index for index in pruned["kept"][1])]
    assert kept == sorted(ranked[: len(kept)])
    assert np.asarray(Image.open(tmp_path / "out.png")).shape[1] == 2100


def test_a_broken_video(tmp_path, capfd):
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(SystemExit):
        cli.main(["explain", "LARGE", "--small", "SMALL", str(tmp_path / "clip.mp4"), "Who?"])
    assert "clip.mp4: expected a video file such as MP4, received: " in capfd.readouterr().err
