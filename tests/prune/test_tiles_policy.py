"""The policy ``tiles``: which tiles it opens, and how it fills them."""

import pytest
import torch

from tools.reference import select
from vllm_sgl.core import Seen, VisualItem
from vllm_sgl.prune.base import kept_count
from vllm_sgl.prune.minimum import AtLeast
from vllm_sgl.prune.registry import check_policy, policy
from vllm_sgl.prune.tiles import FewTiles, open_share


def seen(*parts, tile_tokens=None):
    parts = [torch.as_tensor(part, dtype=torch.float32) for part in parts]
    return [Seen(VisualItem("image", len(part), tile_tokens), part) for part in parts]


def kept(policy, seen, retention):
    chosen = policy.select(seen, retention)
    assert all(part.dtype == torch.int64 for part in chosen)
    return [part.tolist() for part in chosen]


@pytest.mark.parametrize(
    ("opening", "retention", "expected"),
    [
        (0.1, 0.5, [[0, 1, 2]]),  # one token opens tile 0, which has three
        (0.3, 0.5, [[0, 1, 6, 7, 8]]),  # the top three are in tiles 0 and 2
        (0.3, 0.35, [[0, 1, 6]]),  # at 3 of 10 the top three
        (1.0, 0.35, [[0, 1, 6]]),  # opening is never more than what is kept
        (0.1, 1.0, [[0, 1, 2]]),
    ],
)
def test_opens_by_the_top_and_fills_by_importance(opening, retention, expected):
    """Tiles of three tokens, the last one of one."""
    scores = [9.0, 7.0, 0.0, 5.0, 5.0, 5.0, 8.0, 1.0, 0.5, 6.0]
    assert kept(FewTiles(opening), seen(scores, tile_tokens=3), retention) == expected


def test_an_untiled_item_counts_as_one_tile():
    scores = [1.0, 1.0, 9.0, 0.0], [2.0, 3.0, 8.0]
    assert kept(FewTiles(0.15), seen(*scores), 0.6) == [[0, 1, 2, 3], []]
    assert kept(FewTiles(0.3), seen(*scores), 0.6) == [[2], [0, 1, 2]]


def test_images_compete_for_tiles():
    scores = [0.0, 1.0, 9.0, 2.0], [8.0, 7.0, 6.0, 5.0]
    assert kept(FewTiles(0.25), seen(*scores, tile_tokens=2), 0.5) == [[2, 3], [0, 1]]


def brute_force(parts, tile_tokens, opening, retention):
    """Token by token in pure Python, over (image, index)."""
    tokens = [(-score, image, i) for image, part in enumerate(parts) for i, score in enumerate(part.tolist())]
    order = sorted(tokens)
    budget = max(1, int(retention * len(order)))

    def tile(image, index):
        return (image, index // tile_tokens[image])

    opened = {tile(i, t) for _, i, t in order[: min(budget, max(1, int(opening * len(order))))]}
    chosen = []
    for _, image, index in order:
        if tile(image, index) in opened and len(chosen) < budget:
            chosen.append((image, index))
    return [sorted(index for image, index in chosen if image == which) for which in range(len(parts))]


def test_agrees_with_brute_force():
    generator = torch.Generator().manual_seed(0)
    for number in range(200):
        sizes = torch.randint(1, 6, (3,), generator=generator).tolist()
        tile_tokens = [4, 4, 4 * sizes[2]]  # the last image is encoded as a whole
        parts = [torch.randint(0, 12, (4 * size,), generator=generator).float() for size in sizes]
        opening, retention = torch.rand(2, generator=generator).clamp(0.01).tolist()
        items = [
            Seen(VisualItem("image", len(part), 4 if image < 2 else None), part)
            for image, part in enumerate(parts)
        ]
        found = kept(FewTiles(opening), items, retention)
        assert found == brute_force(parts, tile_tokens, opening, retention), number
        assert sum(map(len, found)) <= kept_count(retention, 4 * sum(sizes))


def test_never_opens_more_tiles_than_the_plain_ranking():
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        scores = torch.rand(13 * 16, generator=generator)
        (few,) = FewTiles().select(seen(scores, tile_tokens=16), 0.35)
        (plain,) = select([scores], 0.35)
        assert set((few // 16).tolist()) <= set((plain // 16).tolist())
        assert len(few) == len(plain) or len(few) == 16 * len((few // 16).unique())


@pytest.mark.parametrize("retention", [0.5, 0.35, 0.18, 0.09])
@pytest.mark.parametrize("tile_tokens", [16, 256])
def test_no_tile_is_sure_to_stay_closed(retention, tile_tokens):
    """Why break-even counts none as closed: what opens tiles suffices for one token in each of 13."""
    scores = -torch.arange(tile_tokens).repeat(13).float()
    (few,) = FewTiles().select(seen(scores, tile_tokens=tile_tokens), retention)
    assert (few // tile_tokens).unique().tolist() == list(range(13))


@pytest.mark.parametrize(("retention", "share"), [(0.5, 0.15), (0.35, 0.12), (0.18, 0.086), (0.05, 0.05)])
def test_the_default_follows_from_the_retention(retention, share):
    assert open_share(retention) == pytest.approx(share)
    scores = seen(torch.rand(208, generator=torch.Generator().manual_seed(2)), tile_tokens=16)
    assert kept(FewTiles(), scores, retention) == kept(FewTiles(share), scores, retention)


def test_the_knob_is_a_part_of_the_name():
    assert policy("tiles") == AtLeast(FewTiles())
    assert policy("tiles:0.13") == AtLeast(FewTiles(0.13))


@pytest.mark.parametrize("argument", ["", "0", "-0.1", "1.01", "nan", "some", "0.1:0.2"])
def test_a_bad_share_is_refused(argument):
    with pytest.raises(ValueError, match=r"^--sgl-policy: .*a number in \(0, 1\].*received") as error:
        check_policy(f"tiles:{argument}", key="--sgl-policy")
    assert repr(argument) in str(error.value)


def test_the_plain_ranking_takes_no_argument():
    with pytest.raises(
        ValueError, match=r"sgl_policy: the policy 'top' takes no argument; received 'top:0.1'"
    ):
        check_policy("top:0.1")


@pytest.mark.parametrize("name", ["", "tile", "tiles2:0.1", ":0.1"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match=r"expected the name of a policy, 'top' or 'tiles'.*received"):
        check_policy(name)


def test_auto_is_for_the_engine_to_know():
    check_policy("auto")
    with pytest.raises(ValueError, match="expected the name of a policy"):
        check_policy("auto:0.1")
