"""What of a batch is encoded, in which calls, and what does not add up."""

import weakref

import pytest
import torch

from vllm_sgl.model.encoding import batch_items, encoded
from vllm_sgl.model.feature_cache import FeatureCache
from vllm_sgl.visual.fields import FIELDS, ITEM, KEPT, ROWS, TILES

EMPTY = torch.empty(0, 2)


def batch(*items, tiled=True):
    """Items of (name, tiles), two visual tokens a tile."""
    fields = dict.fromkeys(FIELDS)
    fields[ITEM] = [torch.tensor([name], dtype=torch.uint8) for name, _ in items]
    fields[ROWS] = torch.tensor([2 * len(tiles) for _, tiles in items])
    if tiled:
        fields[TILES] = [torch.tensor(tiles) for _, tiles in items]
    return fields


class Encoder:
    """Features tell the tile's number in the batch; two rows each."""

    def __init__(self, rows=2):
        self.calls, self.rows = [], rows

    def __call__(self, which):
        self.calls.append(list(which))
        return [torch.full((self.rows, 2), float(number)) for number in which]


def run(items, cache=None, most_rows=1000):
    encoder, cache = Encoder(), FeatureCache(0) if cache is None else cache
    found = encoded(items, encoder, cache, most_rows, EMPTY)
    return [features[::2, 0].tolist() for features in found], encoder.calls


def read(*items):
    return batch_items(batch(*items), [len(tiles) for _, tiles in items])


def test_each_tile_is_encoded_once_whoever_brings_it():
    out, calls = run(read((1, [0, 3]), (2, [0]), (1, [3, 5]), (1, [0])))
    assert calls == [[0, 1, 2, 4]]  # tile 3 of image 1 comes from the first, tile 5 from the third
    assert out == [[0, 1], [2], [1, 4], [0]]


@pytest.mark.parametrize(
    ("most", "calls"),
    [(2, [[0], [1], [2], [3], [4]]), (5, [[0, 1], [2, 3], [4]]), (1, [[0], [1], [2], [3], [4]])],
)
def test_calls_are_bounded(most, calls):
    out, made = run(read((1, [0, 1, 2]), (2, [4]), (3, [7])), most_rows=most)
    assert made == calls
    assert out == [[0, 1, 2], [3], [4]]


def test_known_tiles_are_not_encoded_again_and_stay_right():
    cache = FeatureCache(1000)
    run(read((1, [0, 1])), cache)
    out, calls = run(read((1, [0, 1]), (1, [1, 2]), (2, [0, 1])), cache)
    assert calls == [[3, 4, 5]]
    assert out == [[0, 1], [1, 3], [4, 5]]


def test_a_cache_that_holds_one_tile_does_no_harm():
    cache = FeatureCache(16)
    for _ in range(3):
        out, _ = run(read((1, [0, 1, 2]), (2, [0]), (1, [2, 0])), cache, most_rows=4)
        assert len(out) == 3
    cache.put((bytes([9]), 0, 2), torch.full((2, 2), 90.0))
    out, calls = run(read((8, [0]), (9, [0])), cache)
    assert (out, calls) == ([[0], [90]], [[0]])  # held before its room is needed for another


def test_one_name_for_items_of_two_sizes():
    """Clients may name images themselves, and give a name again: the features of one are not the other's."""
    sizes = [(1, 2), (1, 3)]
    fields = batch(*((name, [0]) for name, _ in sizes), tiled=False)
    fields[ROWS] = torch.tensor([rows for _, rows in sizes])
    items, cache = batch_items(fields, [1, 1]), FeatureCache(1000)

    def encode(which):
        return [torch.full((sizes[number][1], 2), float(number)) for number in which]

    for batched in (items, items[:1], items[1:]):
        found = list(encoded(batched, encode, cache, 1000, EMPTY))
        assert [len(features) for features in found] == [item.rows for item in batched]
    assert cache.misses == 2


def test_an_item_without_tiles_is_empty():
    out, calls = run(read((1, []), (2, [4]), (3, [])))
    assert (out, calls) == ([[], [0], []], [[0]])


def test_features_are_let_go_when_nobody_needs_them():
    freed = []

    class Watched(Encoder):
        def __call__(self, which):
            freed.append([reference() is None for reference in references])
            found = super().__call__(which)
            references.extend(weakref.ref(features) for features in found)
            return found

    references = []
    items = read(*((name, [0]) for name in range(4)))
    for _ in encoded(items, Watched(), FeatureCache(0), 2, EMPTY):
        pass
    assert freed == [[], [False], [True, False], [True, True, False]]


def test_every_item_ends_with_the_rest():
    """Behind its tiles, or alone; the encoder gives none of it."""
    fields = batch((1, [0, 3]), (2, []))
    fields[ROWS] += 1
    items = batch_items(fields, [2, 0], rest=1)
    assert [item.rows for item in items] == [2, 0]
    found = encoded(items, Encoder(), FeatureCache(0), 1000, torch.full((1, 2), 7.0))
    assert [features[:, 0].tolist() for features in found] == [[0, 0, 1, 1, 7], [7]]


def test_whole_items_are_one_tile_each():
    fields = batch((1, [0, 0, 0]), (2, [0]), tiled=False)
    items = batch_items(fields, [1, 1])
    assert [(item.rows, list(item.numbers)) for item in items] == [(6, [0]), (2, [1])]


def test_fewer_tiles_than_said_are_an_error():
    with pytest.raises(
        RuntimeError, match="expected pixels of 2 tiles with 4 visual tokens, received 3 tiles"
    ):
        batch_items(batch((1, [0, 3])), [3])


def test_visual_tokens_that_tiles_cannot_have_are_an_error():
    fields = batch((1, [0, 1]))
    fields[ROWS] = torch.tensor([5])
    with pytest.raises(RuntimeError, match="5 visual tokens"):
        batch_items(fields, [2])


def test_features_of_another_size_are_an_error_and_never_cached():
    """Such as all rows of an image where a pruned one's are expected."""
    cache = FeatureCache(1000)
    with pytest.raises(RuntimeError, match="expected 2 visual tokens of a tile, the vision encoder gave 3"):
        list(encoded(read((1, [0])), Encoder(rows=3), cache, 1000, EMPTY))
    assert len(cache) == 0


def test_kept_rows_travel_with_their_item():
    fields = batch((1, [0]), (2, [1]))
    fields[KEPT] = [torch.tensor([1]), torch.tensor([0])]
    assert [item.kept.tolist() for item in batch_items(fields, [1, 1])] == [[1], [0]]
