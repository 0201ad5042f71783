"""Synthetic test images and videos with structure: regions, edges and text-like strokes, not only noise."""

import base64
import io
import random
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

_WORDS = ("STOP", "EXIT", "CAFE", "42", "17:30", "TAXI", "OPEN", "B7", "Sale", "Nord")


#: Eight clients' questions about one image; answers of the tiny models differ in length.
QUESTIONS = [
    "What is on the sign?",
    "Who?",
    "Read the number.",
    "What colour is the car?",
    "Is the door open?",
    "How many people?",
    "What time is it?",
    "Describe the image in detail.",
]


def random_image(seed: int, width: int, height: int) -> Image.Image:
    """An RGB image that depends on its three arguments only."""
    rng = random.Random(f"{seed}/{width}x{height}")

    def colour() -> tuple[int, int, int]:
        return rng.randrange(256), rng.randrange(256), rng.randrange(256)

    def box() -> tuple[int, int, int, int]:
        left, top = rng.randrange(width), rng.randrange(height)
        return left, top, left + rng.randint(4, width), top + rng.randint(4, height)

    image = Image.new("RGB", (width, height), colour())
    draw = ImageDraw.Draw(image)
    for _ in range(8):
        draw.rectangle(box(), fill=colour())
    for _ in range(4):
        draw.ellipse(box(), fill=colour(), outline=colour(), width=3)
    for _ in range(10):
        draw.line(box(), fill=colour(), width=rng.randint(1, 6))
    for _ in range(6):
        place = (rng.randrange(width), rng.randrange(height))
        draw.text(place, rng.choice(_WORDS), fill=colour(), font_size=rng.randint(10, 40))
    return image


def random_video(seed: int, width: int, height: int, frames: int) -> list[Image.Image]:
    """Frames that have nothing in common, so that every one of them tells."""
    return [random_image(1000 * (seed + 1) + number, width, height) for number in range(frames)]


def video_url(frames: list[Image.Image]) -> str:
    """Frames as vLLM takes them from a client that has sampled a video itself, for `video_url` parts."""
    return "data:video/jpeg;base64," + ",".join(base64.b64encode(_jpeg(frame)).decode() for frame in frames)


def jpegs(frames: list[Image.Image]) -> list[Image.Image]:
    """What is left of frames after :func:`video_url`."""
    return [Image.open(io.BytesIO(_jpeg(frame))).convert("RGB") for frame in frames]


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG")
    return buffer.getvalue()


def video_file(path: Path, frames: list[Image.Image], fps: float) -> Path:
    """Write frames as a video file, for vLLM to decode and sample."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, frames[0].size)
    assert writer.isOpened(), path
    for frame in frames:
        writer.write(cv2.cvtColor(np.asarray(frame), cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def data_url(image: Image.Image) -> str:
    """The image as a PNG data URL, for `image_url` parts of OpenAI requests."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
