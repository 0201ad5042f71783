"""Vision features of recent tiles, kept inside a model under a byte bound."""

from collections import OrderedDict

import torch

#: An item's name, the number of one of its tiles, and that tile's visual tokens; an item that is encoded as a
#: whole has the one tile 0. Clients may name images themselves, and may give one name to images of two sizes.
TileKey = tuple[bytes, int, int]


class FeatureCache:
    """Least-recently-used features by tile.

    The same image is encoded once for many questions: vLLM's encoder cache is keyed by image and mask,
    so every new mask would encode the image again.

    Args:
        capacity: bytes kept at most; 0 keeps nothing.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[TileKey, torch.Tensor] = OrderedDict()
        self._held = 0
        self.hits = 0
        self.misses = 0

    def get(self, key: TileKey) -> torch.Tensor | None:
        """Features [visual tokens, hidden] of a tile, or None."""
        features = self._entries.get(key)
        if features is None:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return features

    def put(self, key: TileKey, features: torch.Tensor) -> None:
        """Keep a tile's features, unless they are larger than the whole cache."""
        size = features.nbytes
        if size > self._capacity or key in self._entries:
            return
        # A view would keep the whole batch's features alive.
        self._entries[key] = features.clone()
        self._held += size
        while self._held > self._capacity:
            _, evicted = self._entries.popitem(last=False)
            self._held -= evicted.nbytes

    def clear(self) -> None:
        """Keep none of those that are there."""
        self._entries.clear()
        self._held = 0

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return self._held

    def __len__(self) -> int:
        return len(self._entries)
