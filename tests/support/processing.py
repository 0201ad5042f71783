"""Prompts of any family made by transformers alone: its chat template, tokenizer and image processor."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor

from tools.reference import Reference

#: Fields of one image that are per image, and not flat over the patches of all.
_PER_IMAGE = ("image_grid_thw", "image_sizes")
#: And those of one video that are per video.
_PER_VIDEO = ("video_grid_thw", "second_per_grid_ts")


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


def render_video(
    reference: Reference, question: str, frames: Sequence[Image.Image], fps: float
) -> tuple[list[int], list[dict[str, torch.Tensor]]]:
    """As :func:`render`, of a one-turn chat about a video; fps: of these frames."""
    output = video_output(reference, question, frames, fps)
    if "pixel_values" in output:  # InternVL's
        return output["input_ids"][0].tolist(), [output["pixel_values"]]
    video = {name: torch.as_tensor(output[name])[0] for name in _PER_VIDEO if name in output}
    pixels = output["pixel_values_videos"]
    # LLaVA-OneVision's has an axis over videos.
    video["pixel_values_videos"] = pixels[0] if pixels.dim() == 5 else pixels
    return output["input_ids"][0].tolist(), [video]


def video_output(
    reference: Reference, question: str, frames: Sequence[Image.Image], fps: float
) -> Mapping[str, torch.Tensor]:
    """What transformers' processor makes of all of it."""
    content = [{"type": "video"}, {"type": "text", "text": question}]
    text = reference.tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    count = len(frames)
    about = {
        "fps": fps,
        "duration": count / fps,
        "total_num_frames": count,
        "frames_indices": [*range(count)],
    }
    output: Mapping[str, torch.Tensor] = processor(reference.path)(
        text=[text], videos=[np.stack([np.asarray(frame) for frame in frames])], video_metadata=[about],
        do_sample_frames=False, return_tensors="pt",
    )  # fmt: skip
    return output


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
