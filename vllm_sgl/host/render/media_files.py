"""``ImageMediaIO``, ``VideoMediaIO``: image and video files as vLLM's server would load them (orientation,
colours, allowed formats, sampled frames)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from vllm.multimodal.media import ImageMediaIO, VideoMediaIO


def load_image(path: Path) -> Image.Image:
    """The RGB image in a file.

    Raises:
        OSError: for a file that cannot be read.
        ValueError: for one that is no image, or larger than vLLM allows.
    """
    return ImageMediaIO().load_bytes(path.read_bytes()).media


def load_frames(path: Path, settings: Mapping[str, Any]) -> np.ndarray:
    """uint8 [frames, height, width, 3] of a video file.

    Args:
        settings: as ``--media-io-kwargs`` has them for videos.

    Raises:
        OSError: for a file that cannot be read.
        ValueError: for one that is no video.
    """
    frames, _ = VideoMediaIO(ImageMediaIO(), **settings).load_bytes(path.read_bytes()).media
    return np.asarray(frames)
