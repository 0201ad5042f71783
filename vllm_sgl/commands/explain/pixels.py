"""Images to show: an importance heat map over one, and one with the kept tokens bright. NumPy only."""

from collections.abc import Callable

import numpy as np
from PIL import Image

#: Longer side of a shown image: sharp borders of visual tokens for a small one, no waste for a large one.
_SIDES = 900, 1600
_DIM = np.array([38, 46, 58])
#: Diagonal stripes over a tile that is not encoded: colours, and width as a share of the longer side.
_CLOSED = np.array([[96, 103, 112], [128, 135, 144]])
_STRIPE = 1 / 90
#: What became of a visual token.
CLOSED, DROPPED, KEPT = 0, 1, 2
_GREY = np.array([0.299, 0.587, 0.114])


def shown(image: Image.Image) -> np.ndarray:
    """An RGB image in a size to show: uint8 [height, width, 3]."""
    longer = max(image.size)
    factor = np.clip(longer, *_SIDES) / longer
    width, height = (max(1, round(side * factor)) for side in image.size)
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def spread(token_map: np.ndarray, height: int, width: int) -> np.ndarray:
    """Each pixel's value of a map of visual tokens that covers the image: [height, width, ...]."""
    down, across = token_map.shape[:2]
    return token_map[np.ix_(np.arange(height) * down // height, np.arange(width) * across // width)]


def heat(pixels: np.ndarray, token_map: np.ndarray, colour: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The image in grey under the colours of its tokens' values.

    Args:
        pixels: uint8 [height, width, 3].
        token_map: values as they lie in the image.
        colour: from values to RGBA in [0, 1], one more axis.
    """
    over = spread(colour(token_map)[..., :3], *pixels.shape[:2]) * 255
    grey = (pixels @ _GREY)[..., None]
    mixed: np.ndarray = 0.3 * grey + 0.7 * over
    return mixed.astype(np.uint8)


def spotlight(pixels: np.ndarray, fates: np.ndarray) -> np.ndarray:
    """The image with what is dropped dim, whether it is bright or dark, and stripes over closed tiles.

    Args:
        pixels: uint8 [height, width, 3].
        fates: :data:`CLOSED`, :data:`DROPPED` or :data:`KEPT`, as the tokens lie in the image.
    """
    height, width = pixels.shape[:2]
    fate = spread(fates, height, width)[..., None]
    dim = 0.22 * (pixels @ _GREY)[..., None] + 0.78 * _DIM
    y, x = np.indices((height, width))
    stripes = _CLOSED[((x + y) / (_STRIPE * max(height, width))).astype(int) % 2]
    return np.select([fate == KEPT, fate == DROPPED], [pixels, dim], stripes).astype(np.uint8)


def blanked(pixels: np.ndarray, token_map: np.ndarray) -> np.ndarray:
    """A copy that is white wherever there is no token (-1)."""
    nothing = spread(token_map, *pixels.shape[:2])[..., None] < 0
    return np.where(nothing, np.uint8(255), pixels)


def scale(importance: np.ndarray) -> tuple[float, float]:
    """Ends of a logarithmic colour scale: all but the rarest values lie between.

    Args:
        importance: [visual tokens] of all images, not negative.
    """
    positive = importance[importance > 0]
    if not len(positive):
        return 0.5, 2.0
    low, high = np.quantile(positive, (0.02, 0.995))
    return (float(low), float(high)) if low < high else (float(low) / 2, float(low) * 2)
