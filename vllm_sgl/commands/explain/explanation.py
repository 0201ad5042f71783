"""What there is to explain about one question. The fields of the JSON:

large, small, question   as they were given
query_rows               whose attention makes up importance, as in --query-rows
positions                position ids of kept visual tokens: "original" or "packed"
images                   one entry per image or video:
    path, width, height  the file; its size in pixels
    frames               of a video, the moments that its visual tokens are of (a frame, or the frames that a
                         model sees as one); null for an image. A moment is a tile, and sizes and boxes are
                         those of a frame
    columns, rows        its grid of tiles; of a video, of the strip that is drawn
    thumbnail            whether a thumbnail of the whole image follows the tiles
    tokens_per_tile      visual tokens of each tile, and of the thumbnail
    tiles                how many there are, the thumbnail included; 1 where the image is not cut
    visual_tokens        of the whole image; an index counts tiles row by row, the thumbnail last, and
                         inside each of them tokens row by row; of a video, moment by moment
    boxes                what each visual token sees: [x0, y0, x1, y1] in pixels
    importance           of each visual token: attention of the small model, summed
small_answer             {text, tokens, finished}: finished is false for an answer cut at its length limit
large_answer             the same, of the large model with every visual token
pruned                   one entry per retention:
    retention            share of visual tokens that the large model kept, of all images together
    kept_tokens          their number, max(1, floor(retention * visual tokens)) or what open tiles have
    kept                 per image, ascending indices of its kept visual tokens
    open_tiles           per image, ascending numbers of the tiles that they are in; the large model encodes
                         no others
    answer               {text, tokens, finished} of the large model with these
confidence               of the small model in its answer, [0, 1]
consistency              of that answer, [0, 1]; null where it was cut before the request's own limit
score                    the exit score, by default the mean of both; or null
exit_threshold           as it was given, or null
decision, reason         what a server with this threshold does: "exit" or "prune", and why it does not
                         exit; null without a threshold
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vllm_sgl.core import VisualItem

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from vllm_sgl.commands.explain.clip import SeenVideo
    from vllm_sgl.visual.layout import Layout


@dataclass(frozen=True)
class Said:
    """tokens: how many, the end token included. finished: not cut at the length limit."""

    text: str
    tokens: int
    finished: bool


@dataclass(frozen=True)
class SeenImage:
    """importance: float32 [visual tokens]."""

    path: str
    pixels: "Image.Image"
    layout: "Layout"
    importance: "np.ndarray"

    @property
    def item(self) -> VisualItem:
        return VisualItem("image", self.layout.visual_tokens, self.layout.tile_tokens)

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.size

    def boxes(self) -> list[list[float]]:
        boxes: list[list[float]] = self.layout.boxes(*self.size).tolist()
        return boxes


@dataclass(frozen=True)
class PrunedAnswer:
    """kept: one ascending int64 array of kept indices per image."""

    retention: float
    kept: "Sequence[np.ndarray]"
    answer: Said

    @property
    def kept_tokens(self) -> int:
        return sum(map(len, self.kept))

    def open_tiles(self, images: "Sequence[SeenImage | SeenVideo]") -> list[list[int]]:
        """Per image or video, ascending numbers of the tiles that kept tokens are in."""
        import torch

        return [
            image.item.open_tiles(torch.from_numpy(kept)).tolist()
            for image, kept in zip(images, self.kept, strict=True)
        ]


@dataclass(frozen=True)
class Explanation:
    """Field by field in the module's docstring."""

    large: str
    small: str
    question: str
    query_rows: str
    positions: str
    images: "Sequence[SeenImage | SeenVideo]"
    small_answer: Said
    large_answer: Said
    pruned: Sequence[PrunedAnswer]
    confidence: float
    consistency: float | None
    score: float | None
    exit_threshold: float | None
    decision: str | None
    reason: str | None

    @property
    def visual_tokens(self) -> int:
        return sum(image.layout.visual_tokens for image in self.images)

    def as_json(self) -> dict[str, Any]:
        plain = {
            "images": [_image(image) for image in self.images],
            "small_answer": asdict(self.small_answer),
            "large_answer": asdict(self.large_answer),
            "pruned": [_pruned(pruned, self.images) for pruned in self.pruned],
        }
        return {name: plain.get(name, value) for name, value in vars(self).items()}


def _image(image: "SeenImage | SeenVideo") -> dict[str, Any]:
    width, height = image.size
    layout = image.layout
    return {
        "path": image.path,
        "width": width,
        "height": height,
        "frames": None if isinstance(image, SeenImage) else image.item.tiles,
        "columns": layout.columns,
        "rows": layout.rows,
        "thumbnail": len(layout.views) > 1,
        "tokens_per_tile": layout.tile_tokens,
        "tiles": image.item.tiles,
        "visual_tokens": layout.visual_tokens,
        "boxes": image.boxes(),
        "importance": image.importance.tolist(),
    }


def _pruned(pruned: PrunedAnswer, images: "Sequence[SeenImage | SeenVideo]") -> dict[str, Any]:
    return {
        "retention": pruned.retention,
        "kept_tokens": pruned.kept_tokens,
        "kept": [indices.tolist() for indices in pruned.kept],
        "open_tiles": pruned.open_tiles(images),
        "answer": asdict(pruned.answer),
    }
