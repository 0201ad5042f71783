"""``ImageMediaIO``: an image file as vLLM's server would load it (orientation, colours, allowed formats)."""

from pathlib import Path

from PIL import Image
from vllm.multimodal.media import ImageMediaIO


def load_image(path: Path) -> Image.Image:
    """The RGB image in a file.

    Raises:
        OSError: for a file that cannot be read.
        ValueError: for one that is no image, or larger than vLLM allows.
    """
    return ImageMediaIO().load_bytes(path.read_bytes()).media
