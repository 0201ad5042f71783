"""What is behind the signs, and what the camera does to them. Arrays are uint8 [height, width, 3]."""

import numpy as np
from PIL import Image

BACKGROUNDS = ("plaster", "planks", "hills", "bricks")
"""Training uses all but the last, which is kept for the test split."""


def _smooth(rng: np.random.Generator, size: tuple[int, int], step: int, spread: float) -> np.ndarray:
    """Noise [height, width, 1] that changes over about `step` pixels."""
    width, height = size
    grid = rng.normal(0, spread, (height // step + 2, width // step + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BILINEAR))[..., None]


def background(rng: np.random.Generator, kind: str, size: tuple[int, int]) -> np.ndarray:
    width, height = size
    base = rng.integers(90, 190) + rng.integers(-22, 23, 3)
    scene = base + _smooth(rng, size, 48, 12) + _smooth(rng, size, 7, 7)
    rows, columns = np.arange(height)[:, None, None], np.arange(width)[None, :, None]
    if kind == "planks":
        pitch = int(rng.integers(14, 30))
        scene = scene + 18.0 * ((columns // pitch) % 2) - 26.0 * (columns % pitch < 1)
    elif kind == "hills":
        crest = height * rng.uniform(0.3, 0.7) + 18 * np.sin(
            columns / rng.uniform(25, 60) + rng.uniform(0, 6)
        )
        scene = np.where(rows < crest, scene + np.array([-12, 6, 26]), scene + np.array([-14, 10, -22]))
    elif kind == "bricks":
        tall, wide = int(rng.integers(9, 14)), int(rng.integers(20, 30))
        shifted = columns + (rows // tall % 2) * (wide // 2)
        mortar = (rows % tall < 1) | (shifted % wide < 1)
        scene = np.where(mortar, scene + 34, scene + np.array([16, -8, -14]))
    return np.clip(scene, 0, 255).astype(np.uint8)


def light_and_noise(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """An uneven light over the picture and sensor noise in every pixel."""
    height, width, _ = image.shape
    light = 1 + _smooth(rng, (width, height), 150, 0.07)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(2, 7)
    return np.clip(image * light + noise, 0, 255).astype(np.uint8)
