"""Rewriting rendered prompts: fewer placeholders, shifted items, a hash per mask, inputs never changed."""

import copy

import pytest
import torch
from vllm.multimodal.inputs import PlaceholderRange

from tests.support.prompts import END, IMG, START, make_prompt
from vllm_sgl.prune.rewrite import prune_prompt, tag_items
from vllm_sgl.visual.fields import ITEM, KEPT, LENGTH, PLACES, ROWS
from vllm_sgl.visual.items import visual_counts


def indices(*values):
    return torch.tensor(values, dtype=torch.int64)


def data(prompt, name):
    return [entry[name].data for entry in prompt["mm_kwargs"]["image"]]


def ranges(prompt, modality="image"):
    return [(place.offset, place.length) for place in prompt["mm_placeholders"][modality]]


def test_visual_counts_leave_markers_out():
    assert visual_counts(make_prompt()) == (5, 3)


def test_pruned_placeholders_go_and_everything_else_stays():
    pruned = prune_prompt(make_prompt(), [indices(0, 3), indices(2)])
    assert pruned["prompt_token_ids"] == [1, 2, START, IMG, IMG, END, 3, IMG, 4, 5]
    assert ranges(pruned) == [(2, 4), (7, 1)]
    first, second = pruned["mm_placeholders"]["image"]
    assert first.is_embed.tolist() == [False, True, True, False]
    assert second.is_embed is None
    assert visual_counts(pruned) == (2, 1)
    assert (pruned["type"], pruned["cache_salt"]) == ("multimodal", "salt")
    assert "prompt_token_offsets" not in pruned


def test_fields_for_the_model():
    pruned = prune_prompt(make_prompt(), [indices(0, 3), indices(2)])
    assert [x.tolist() for x in data(pruned, KEPT)] == [[0, 3], [2]]
    # Inside the placeholder the start marker is at 0, the visual tokens at 1 to 5, the end marker at 6.
    assert [x.tolist() for x in data(pruned, PLACES)] == [[0, 1, 4, 6], [2]]
    assert [int(x) for x in data(pruned, LENGTH)] == [7, 3]
    assert [x.tolist() for x in data(pruned, "pixel_values_flat")] == [[[1.0] * 3] * 5, [[2.0] * 3] * 3]
    names = data(pruned, ITEM)
    assert all(x.dtype == torch.uint8 and x.shape == (16,) for x in names)
    assert not names[0].equal(names[1])
    assert [int(x) for x in data(pruned, ROWS)] == [5, 3]  # all of the features, pruned or not
    for name in (KEPT, PLACES, LENGTH, ITEM, ROWS):
        assert all(entry[name].field.keep_on_cpu for entry in pruned["mm_kwargs"]["image"])


@pytest.mark.parametrize(
    ("kept", "ids", "expected"),
    [
        ([(), (0, 1, 2)], [1, 2, START, END, 3, IMG, IMG, IMG, 4, 5], [(2, 2), (5, 3)]),
        ([(0, 1, 2, 3, 4), (1,)], [1, 2, START, *[IMG] * 5, END, 3, IMG, 4, 5], [(2, 7), (10, 1)]),
        ([(4,), (1,)], [1, 2, START, IMG, END, 3, IMG, 4, 5], [(2, 3), (6, 1)]),
    ],
    ids=["nothing and all", "all and one", "one each"],
)
def test_images_that_keep_nothing_or_all(kept, ids, expected):
    pruned = prune_prompt(make_prompt(), [indices(*part) for part in kept])
    assert pruned["prompt_token_ids"] == ids
    assert ranges(pruned) == expected


def test_a_placeholder_never_becomes_empty():
    """An engine fails on one, and with it every request that it has."""
    with pytest.raises(ValueError, match="the image at token 10 keeps none of its 3 tokens"):
        prune_prompt(make_prompt(), [indices(0), indices()])


@pytest.mark.parametrize(("offset", "moved"), [(0, 0), (13, 8)], ids=["before the images", "behind them"])
def test_other_modality_is_shifted_and_left_alone(offset, moved):
    prompt = make_prompt(other=offset)
    pruned = prune_prompt(prompt, [indices(1), indices(0, 1)])
    assert ranges(pruned, "audio") == [(moved, 2)]
    assert pruned["mm_hashes"]["audio"] == ["hash-3"]
    assert pruned["mm_kwargs"]["audio"][0] is prompt["mm_kwargs"]["audio"][0]


def test_input_is_never_changed():
    prompt = make_prompt(other=13)
    before = copy.deepcopy(prompt)
    kept = [indices(0, 3), indices(2)]
    prune_prompt(prompt, kept)
    tag_items(prompt)
    assert prompt["prompt_token_ids"] == before["prompt_token_ids"]
    assert prompt["mm_hashes"] == before["mm_hashes"]
    assert ranges(prompt) == ranges(before)
    assert ranges(prompt, "audio") == ranges(before, "audio")
    assert prompt["mm_placeholders"]["image"][0].is_embed.equal(
        before["mm_placeholders"]["image"][0].is_embed
    )
    assert [set(entry) for entry in prompt["mm_kwargs"]["image"]] == [{"pixel_values_flat"}] * 2
    assert "prompt_token_offsets" in prompt
    assert [x.tolist() for x in kept] == [[0, 3], [2]]


def hashes(*kept, prompt=None):
    return prune_prompt(prompt or make_prompt(), [indices(*part) for part in kept])["mm_hashes"]["image"]


def test_same_mask_has_the_same_hash():
    assert hashes((0, 3), (2,)) == hashes((0, 3), (2,))


def test_each_mask_has_a_hash_of_its_own():
    masks = [(), (0,), (1,), (0, 1), (0, 3)]
    seen = {hashes(mask, (0,))[0] for mask in masks} | {"hash-1"}
    assert len(seen) == len(masks) + 1


def test_an_image_of_which_nothing_is_missing_keeps_its_hash():
    """Caches know it from prompts that were not pruned."""
    assert hashes((0, 1, 2, 3, 4), (0,))[0] == "hash-1"


def test_hash_is_per_image_and_knows_the_image():
    one, two = hashes((0, 1), (0, 1))
    assert one != two
    assert hashes((0, 1), (0, 2))[0] == one
    other = make_prompt()
    other["mm_hashes"]["image"] = ["other", "hash-2"]
    assert hashes((0, 1), (0, 1), prompt=other)[0] != one


def test_same_indices_of_a_longer_image_hash_differently():
    longer = make_prompt()
    longer["prompt_token_ids"].insert(10, IMG)
    longer["mm_placeholders"]["image"][1] = PlaceholderRange(offset=10, length=4)
    assert hashes((0,), (1,), prompt=longer)[1] != hashes((0,), (1,))[1]


def test_tagging_names_images_and_changes_nothing_else():
    prompt = make_prompt()
    tagged = tag_items(prompt)
    assert {key: tagged[key] for key in prompt if key != "mm_kwargs"} == {
        key: prompt[key] for key in prompt if key != "mm_kwargs"
    }
    assert [set(entry) for entry in tagged["mm_kwargs"]["image"]] == [{"pixel_values_flat", ITEM, ROWS}] * 2


def test_tag_and_mask_name_an_image_alike_whatever_was_tagged_before():
    plain = make_prompt()
    names = [x.tolist() for x in data(tag_items(plain), ITEM)]
    for prompt in (plain, tag_items(plain)):
        pruned = prune_prompt(prompt, [indices(1), indices(2)])
        assert [x.tolist() for x in data(pruned, ITEM)] == names
        assert pruned["mm_hashes"]["image"] == hashes((1,), (2,))


@pytest.mark.parametrize("wrong", [(0, 5), (-1, 2)], ids=["too high", "negative"])
def test_indices_of_no_visual_token_are_refused_before_anything_is_sent(wrong):
    with pytest.raises(ValueError, match=f"below 5, the image's visual tokens; received {wrong[0]} to"):
        prune_prompt(make_prompt(), [indices(*wrong), indices(0)])


@pytest.mark.parametrize("kept", [[indices(0)], [indices(0), indices(1), indices(2)]], ids=["few", "many"])
def test_one_mask_per_image_is_required(kept):
    with pytest.raises(ValueError, match="zip"):
        prune_prompt(make_prompt(), kept)
