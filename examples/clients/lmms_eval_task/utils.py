"""What the task's YAML cannot say."""

from typing import Any

from PIL import Image


def images(question: dict[str, Any]) -> list[Image.Image]:
    """The pictures of a question."""
    return [Image.open(question["image"]).convert("RGB")]
