"""The pair that is served: the widened sign readers, with what videos need."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.support.pair import Pair, WidenedSigns, signs
from tools.tiny_internvl.tokenizer import IMG_CONTEXT, VIDEO_PAD

_SHAPE = "26B+2B"
_START_SECONDS = 400.0


@dataclass(frozen=True)
class WithVideos(WidenedSigns):
    """vLLM gives InternVL's chat format videos where its vocabulary has ``<|video_pad|>``. The readers' has
    not; the copy gets it. No answer changes: nothing ever writes that token."""

    def write(self, folder: Path) -> None:
        super().write(folder)
        add_video_token(folder)


def pair(gflop: float, break_even: str = "auto") -> Pair:
    """The sign readers in the proportions of a 26B with a 2B, with room for every shape.

    Args:
        gflop: of the large model, per tile.
        break_even: ``--sgl-break-even``; a setting's flags may say otherwise.
    """
    flags = (
        "--enforce-eager", "--mm-processor-cache-gb=0.4", "--enable-prompt-tokens-details",
        # vLLM's default on CPUs, 128, is more than half of such a prompt: hardly a block could be reused.
        "--block-size=32",
    )  # fmt: skip
    large, small = (WithVideos(_SHAPE, part, gflop) for part in ("large", "small"))
    return replace(
        signs(_SHAPE, gflop), large=large, small=small, max_model_len=1024, images=4, flags=flags,
        large_kv=600_000_000, small_kv=150_000_000, break_even=break_even, start_seconds=_START_SECONDS,
    )  # fmt: skip


def add_video_token(folder: Path) -> None:
    """Give a reader's checkpoint the token that stands for a video's visual tokens, with the embedding of the
    one that stands for an image's."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    image = next(one for one in tokenizer["added_tokens"] if one["content"] == IMG_CONTEXT)
    new = 1 + max(one["id"] for one in tokenizer["added_tokens"])
    tokenizer["added_tokens"].append({**image, "id": new, "content": VIDEO_PAD})
    path.write_text(json.dumps(tokenizer))
    config = json.loads((folder / "config.json").read_text())
    config["llm_config"]["vocab_size"] = new + 1
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            tensors[name] = torch.cat([tensor[:new], tensor[image["id"]][None]])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
