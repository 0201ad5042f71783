"""Prompts of any family made by transformers alone: its chat template, tokenizer and image processor."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoProcessor

from tools.reference import Reference

#: Fields of one image that are per image, and not flat over the patches of all.
_PER_IMAGE = ("image_grid_thw", "image_sizes")


@cache
def processor(path: Path) -> Any:
    return AutoProcessor.from_pretrained(path)


def process(path: Path, image: Image.Image) -> torch.Tensor | dict[str, torch.Tensor]:
    """What the image processor makes of one image, as :mod:`tools.reference` takes it: pixels alone where
    they are all there is to say."""
    output = processor(path).image_processor(images=[image], return_tensors="pt")
    fields = {name: torch.as_tensor(output[name])[0] for name in _PER_IMAGE if name in output}
    pixels = output["pixel_values"]
    # LLaVA-OneVision's has an axis over images.
    return {"pixel_values": pixels[0] if pixels.dim() == 5 else pixels, **fields} if fields else pixels


def chat_text(reference: Reference, question: str, images: int) -> str:
    """A one-turn chat with the images in front."""
    content = [*[{"type": "image"}] * images, {"type": "text", "text": question}]
    return reference.tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )


def render(
    reference: Reference, question: str, images: Sequence[Image.Image]
) -> tuple[list[int], list[torch.Tensor | dict[str, torch.Tensor]]]:
    """Token ids with one placeholder token per visual token, and what :func:`process` gives per image."""
    processed = [process(reference.path, image) for image in images]
    counts = [len(reference.visual_features(image)) for image in processed]
    text = chat_text(reference, question, len(images))
    tokens = reference.tokenizer(text, add_special_tokens=False).input_ids
    markers = reference.tokenizer.convert_tokens_to_ids(list(reference.markers or ()))
    before, after = markers[:1], markers[1:]
    expanded: list[int] = []
    for token in tokens:
        if token == reference.image_token_id:
            expanded += [*before, *[token] * counts.pop(0), *after]
        else:
            expanded.append(token)
    assert not counts, f"{len(counts)} images have no place in {text!r}"
    return expanded, processed
