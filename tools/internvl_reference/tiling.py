"""How InternVL cuts an image into tiles and a tile into visual tokens, and how to make it cut fewer.

The rule is that of the models' published preprocessing (https://huggingface.co/OpenGVLab/InternVL2-26B): an
image is stretched to the grid of tiles whose aspect ratio is nearest to its own and cut; a thumbnail of the
whole follows where there is more than one tile. Visual tokens run row by row through each tile.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

Grid = tuple[int, int]  # columns, rows


@dataclass(frozen=True)
class Tiling:
    """side: of a tile, pixels. cells: visual tokens along a tile's side."""

    side: int
    cells: int
    min_tiles: int
    max_tiles: int
    thumbnail: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Tiling":
        """From a model's ``config.json`` in InternVL's chat format."""
        side = config.get("force_image_size") or config["vision_config"]["image_size"]
        cells = int(side // config["vision_config"]["patch_size"] * config["downsample_ratio"])
        dynamic = config["dynamic_image_size"]
        return cls(
            side=side,
            cells=cells,
            min_tiles=config["min_dynamic_patch"] if dynamic else 1,
            max_tiles=config["max_dynamic_patch"] if dynamic else 1,
            thumbnail=config["use_thumbnail"],
        )

    @cached_property
    def _grids(self) -> list[Grid]:
        sides = range(1, self.max_tiles + 1)
        grids = [(c, r) for c in sides for r in sides if self.min_tiles <= c * r <= self.max_tiles]
        return sorted(grids, key=lambda grid: grid[0] * grid[1])

    def grid(self, width: int, height: int) -> Grid:
        """Columns and rows for an image. Of two equally near aspect ratios the larger grid is taken only
        for an image of more than half of its pixels."""
        best, best_distance = (1, 1), float("inf")
        for columns, rows in self._grids:
            distance = abs(width / height - columns / rows)
            enough = width * height > 0.5 * self.side**2 * columns * rows
            if distance < best_distance or (distance == best_distance and enough):
                best, best_distance = (columns, rows), distance
        return best

    def tokens(self, grid: Grid) -> int:
        """Visual tokens of an image on this grid, its thumbnail included."""
        tiles = grid[0] * grid[1]
        return (tiles + (self.thumbnail and tiles > 1)) * self.cells**2

    def downsampled(self, width: int, height: int, budget: float) -> tuple[int, int]:
        """Width and height to which to resize an image so that it has at most ``budget`` visual tokens.

        Of all grids within the budget the one on which the image is largest in its more squeezed
        direction; the smallest grid where even that has more. The size is exactly the grid's, so the model
        resizes no more.
        """

        def scale(grid: Grid) -> tuple[float, int]:
            columns, rows = grid
            return min(columns / width, rows / height), -columns * rows

        fixed = [g for g in self._grids if self.grid(g[0] * self.side, g[1] * self.side) == g]
        fitting = [grid for grid in fixed if self.tokens(grid) <= budget]
        columns, rows = max(fitting or fixed[:1], key=scale)
        return columns * self.side, rows * self.side

    def token_boxes(self, width: int, height: int) -> torch.Tensor:
        """What each visual token of an image sees: float64 [tokens, 4], x0, y0, x1, y1 in its pixels."""
        columns, rows = self.grid(width, height)
        boxes = [
            self._cells(x / columns, y / rows, 1 / columns, 1 / rows)
            for y in range(rows)
            for x in range(columns)
        ]
        if self.thumbnail and len(boxes) > 1:
            boxes.append(self._cells(0, 0, 1, 1))
        return torch.cat(boxes) * torch.tensor([width, height, width, height], dtype=torch.float64)

    def _cells(self, left: float, top: float, width: float, height: float) -> torch.Tensor:
        """Boxes [cells * cells, 4] of a tile at this place, all in shares of the image."""
        edge = torch.arange(self.cells, dtype=torch.float64) / self.cells
        y, x = torch.meshgrid(edge, edge, indexing="ij")
        x0, y0 = left + x.flatten() * width, top + y.flatten() * height
        return torch.stack([x0, y0, x0 + width / self.cells, y0 + height / self.cells], dim=1)
