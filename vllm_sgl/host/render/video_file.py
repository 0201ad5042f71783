"""``VideoMediaIO``: the frames that vLLM's server would take of a video file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from vllm.multimodal.media import ImageMediaIO, VideoMediaIO


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
