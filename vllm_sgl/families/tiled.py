"""What InternVL's formats share: every tile, of an image or a frame of a video, is a row of pixels."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from vllm_sgl.model.pruned import Pruned
from vllm_sgl.visual.tiles import Tiles, square_tiles


class PickRows(Pruned):
    """Mixin, as :class:`Pruned`.

    pixel_field_of: for each modality, the field with a row of pixels per tile.
    count_field_of: for each of them, the field that says how many tiles there are.
    """

    pixel_field_of: ClassVar[Mapping[str, str]]
    count_field_of: ClassVar[Mapping[str, str]]

    @classmethod
    def tiles(cls, cells: int) -> Mapping[str, Tiles]:
        """How items carry their tiles. cells: visual tokens along a tile's side."""
        return {
            name: Tiles(field, square_tiles(cells), cls.count_field_of[name])
            for name, field in cls.pixel_field_of.items()
        }

    def tile_counts(self, said: Sequence[int | None], **kwargs: Any) -> list[int]:
        counts: list[int] = kwargs[self.count_field_of[self._modality(kwargs)]].flatten().tolist()
        return counts

    def pick(self, which: Sequence[int], counts: Sequence[int], **kwargs: Any) -> dict[str, object]:
        modality = self._modality(kwargs)
        tiles = kwargs[self.pixel_field_of[modality]]
        # Without an index on the device, which the host would have to wait for.
        picked = tiles if len(which) == len(tiles) else torch.stack([tiles[number] for number in which])
        ones = torch.ones(len(which), dtype=torch.int64)
        return {**kwargs, self.pixel_field_of[modality]: picked, self.count_field_of[modality]: ones}

    def _modality(self, kwargs: Mapping[str, Any]) -> str:
        return next(modality for modality, field in self.pixel_field_of.items() if field in kwargs)
