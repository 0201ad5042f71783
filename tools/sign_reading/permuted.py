"""A checkpoint in InternVL's chat format once more, as a model with another vocabulary and chat template.

    python -m tools.sign_reading.permuted models/signs-small OUT_DIR

Every token gets another id, and the tokens that mark turns another spelling, in the tokenizer, the template
and the weights alike. The model computes what it did: whoever renders a conversation with the new files gives
it the embeddings that the old files gave it. A prompt in the old model's ids is nonsense to it.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tools.tiny_internvl.tokenizer import IM_END, IM_START

#: Weights with one row per token.
_ROWS = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")
_SPELLING = {IM_START: "<|turn|>", IM_END: "<|over|>"}
_ID_FIELDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def permute(checkpoint: Path | str, directory: Path | str, seed: int = 0) -> Path:
    """Write the permuted model into `directory` (created if missing) and return the path."""
    checkpoint, directory = Path(checkpoint), Path(directory)
    shutil.copytree(checkpoint, directory, dirs_exist_ok=True)
    tokenizer = _read(checkpoint / "tokenizer.json")
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    old = {**tokenizer["model"]["vocab"], **added}
    generator = torch.Generator().manual_seed(seed)
    new_id = torch.randperm(len(old), generator=generator).tolist()

    _write(directory / "tokenizer.json", _tokenizer(tokenizer, old, new_id))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        _write(directory / name, json.loads(_respelt((checkpoint / name).read_text())))
    config = _read(checkpoint / "config.json")
    config["llm_config"] = _with_ids(config["llm_config"], new_id)
    _write(directory / "config.json", config)
    name = "generation_config.json"
    _write(directory / name, _with_ids(_read(checkpoint / name), new_id))

    weights = load_file(checkpoint / "model.safetensors")
    for row in _ROWS:
        moved = weights[row].clone()  # rows past the last token stay where they are
        moved[new_id] = weights[row][: len(new_id)]
        weights[row] = moved
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def _tokenizer(tokenizer: dict[str, Any], old: dict[str, int], new_id: list[int]) -> dict[str, Any]:
    # Special tokens are part of the model's vocabulary too: only then may they have any id.
    vocabulary = {_respelt(piece): new_id[index] for piece, index in old.items()}
    added = [
        {**token, "id": new_id[token["id"]], "content": _respelt(token["content"])}
        for token in tokenizer["added_tokens"]
    ]
    return {
        **tokenizer,
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "model": {**tokenizer["model"], "vocab": vocabulary},
    }


def _with_ids(config: dict[str, Any], new_id: list[int]) -> dict[str, Any]:
    moved = {name: new_id[config[name]] for name in _ID_FIELDS if config.get(name) is not None}
    return {**config, **moved}


def _respelt(text: str) -> str:
    for old, new in _SPELLING.items():
        text = text.replace(old, new)
    return text


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.sign_reading.permuted", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out_dir", type=Path)
    arguments = parser.parse_args()
    print(permute(arguments.checkpoint, arguments.out_dir))


if __name__ == "__main__":
    main()
