"""InternVL's published image preprocessing and prompt expansion, written from its description: pixels and
token ids. How an image is cut is in ``tools/internvl_reference/tiling.py``."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer

from tools.internvl_reference.tiling import Tiling

_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def _to_tensor(image: Image.Image) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1)
    return (pixels.to(torch.float32) / 255 - _MEAN) / _STD


def pixel_values(image: Image.Image, config: dict) -> torch.Tensor:
    """Normalised tiles [tiles (+ 1 thumbnail), 3, tile, tile] of one image."""
    image = image.convert("RGB")
    tiling = Tiling.of(config)
    tile = tiling.side
    columns, rows = tiling.grid(*image.size)
    stretched = image.resize((columns * tile, rows * tile), Image.Resampling.BICUBIC)
    tiles = [
        stretched.crop((x * tile, y * tile, (x + 1) * tile, (y + 1) * tile))
        for y in range(rows)
        for x in range(columns)
    ]
    if len(tiles) > 1 and tiling.thumbnail:
        tiles.append(image.resize((tile, tile), Image.Resampling.BICUBIC))
    return torch.stack([_to_tensor(part) for part in tiles])


def chat_prompt(question: str, images: int) -> str:
    """ChatML text of a one-turn chat with `images` images in front, one a line."""
    text = "<image>\n" * images + question
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def render(path: Path | str, prompt: str, images: list[Image.Image]) -> tuple[list[int], list[torch.Tensor]]:
    """Token ids of `prompt`, every "<image>" expanded, and the pixel values of each image."""
    config = json.loads((Path(path) / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
    tokens_per_tile = Tiling.of(config).cells ** 2
    pixels = [pixel_values(image, config) for image in images]
    pieces = prompt.split("<image>")
    assert len(pieces) == len(images) + 1, f"{len(pieces) - 1} places for {len(images)} images"
    text = pieces[0]
    for tiles, piece in zip(pixels, pieces[1:], strict=True):
        text += f"<img>{'<IMG_CONTEXT>' * (len(tiles) * tokens_per_tile)}</img>{piece}"
    return tokenizer(text, add_special_tokens=False).input_ids, pixels
