"""Beginnings of prompts, and what is remembered under them."""

from types import SimpleNamespace as Place

import pytest
import torch

from vllm_sgl.core import GuideRequest, Late, VisualItem
from vllm_sgl.prune.memory import Memory, Plan, indices_of

IMAGE = -1
SETTINGS = (0.35, "top", "prompt+generated")
KEPT = torch.tensor([1, 3])
OTHER = torch.tensor([0, 2])


def request(*parts, salt=None, lora=None):
    """parts: token ids, and images by name, of four visual tokens each."""
    ids, places, hashes = [], [], []
    for part in parts:
        if isinstance(part, str):
            places.append(Place(offset=len(ids), length=4))
            hashes.append(part)
            ids += [IMAGE] * 4
        else:
            ids.append(part)
    prompt = {
        "prompt_token_ids": ids, "mm_placeholders": {"image": places}, "mm_hashes": {"image": hashes},
        **({} if salt is None else {"cache_salt": salt}),
    }  # fmt: skip
    items = tuple(VisualItem("image", 4) for _ in places)
    return GuideRequest("r", prompt, items, None, 8, "prompt+generated", lora=lora)


def remembering(*asked, plan=None, settings=SETTINGS, **kwargs):
    memory = Memory(**kwargs)
    for one in asked:
        memory.remember(one, settings, plan or Plan((KEPT,) * len(one.items)))
    return memory


FIRST = request(1, "a", 2, 3)


@pytest.mark.parametrize(
    ("later", "length", "follows"),
    [
        (request(1, "a", 2, 3), 7, True),
        (request(1, "a", 2, 3, 4, 5), 7, True),
        (request(1, "a", 9), 5, False),
        (request(1, "a", 2, 3, "b", 4), 7, True),
        (request(1, "a", "b", 2, 3), 5, False),
    ],
)
def test_a_beginning_is_found(later, length, follows):
    found = remembering(FIRST).recall(later, SETTINGS)
    assert (found.length, found.follows) == (length, follows or (len(later.items) > 1 and length > 5))
    assert [kept.tolist() for kept in found.plan.kept] == [[1, 3]]


@pytest.mark.parametrize(
    "other",
    [
        request(1, "b", 2, 3),
        request(0, "a", 2, 3),
        request(1, 1, "a", 2, 3),
        request("a", 1, 2, 3),
        request(1, "b", "a", 2, 3),
        request(1, "a", 2, 3, salt="s"),
        request(1, "a", 2, 3, lora="l"),
        request(1, 2, 3),
    ],
)
def test_other_beginnings_are_not(other):
    assert remembering(FIRST).recall(other, SETTINGS) is None


def test_masks_of_other_settings_are_not_found_and_whole_images_are():
    assert remembering(FIRST).recall(FIRST, (0.18, *SETTINGS[1:])) is None
    whole = remembering(FIRST, plan=Plan((None,)))
    assert whole.recall(FIRST, (0.18, *SETTINGS[1:])).plan.whole


def test_what_is_whole_comes_before_a_mask_of_the_same_beginning():
    memory = remembering(FIRST)
    memory.remember(request(1, "a", 7), SETTINGS, Plan((None,)))
    assert memory.recall(request(1, "a", 8), SETTINGS).plan.whole
    assert not memory.recall(request(1, "a", 2, 3, 4), SETTINGS).plan.whole  # the longer beginning


def test_an_earlier_mask_of_an_image_stays():
    """Two questions at once have a mask each, and go on with it; new ones go on with the first."""
    memory = remembering(FIRST)
    memory.remember(request(1, "a", 8), SETTINGS, Plan((OTHER,)))
    for tokens, kept in (((2, 3, 4), KEPT), ((8, 4), OTHER), ((9,), KEPT)):
        found = memory.recall(request(1, "a", *tokens), SETTINGS)
        assert found.plan.kept[0].tolist() == kept.tolist()


def test_two_equal_images_have_masks_of_their_own():
    memory = remembering(request(1, "a", "a", 2), plan=Plan((KEPT, OTHER)))
    assert [kept.tolist() for kept in memory.recall(request(1, "a", "a", 3), SETTINGS).plan.kept] == [
        [1, 3],
        [0, 2],
    ]
    assert [kept.tolist() for kept in memory.recall(request(1, "a", 3), SETTINGS).plan.kept] == [[1, 3]]


def test_edited_history_goes_back_to_what_is_unedited():
    memory = remembering(FIRST)
    late = (Late(0, 8, torch.tensor([0])),)
    memory.remember(request(1, "a", 2, 3, 4, 5), SETTINGS, Plan((KEPT,), late))
    found = [
        memory.recall(request(1, "a", *tokens), SETTINGS)
        for tokens in ((2, 3, 4, 5, 6), (2, 3, 4, 9), (2, 3, 9), (2, 9, 4, 5, 6), (9, 9))
    ]
    assert [(one.length, len(one.plan.late)) for one in found] == [(9, 1), (8, 1), (7, 0), (5, 0), (5, 0)]


def test_late_tokens_are_found_where_a_template_rewrites_what_comes_after_them():
    memory = remembering(FIRST)
    late = (Late(0, 8, torch.tensor([0])),)
    memory.remember(request(1, "a", 2, 3, 4, 5, 6), SETTINGS, Plan((KEPT,), late))
    found = memory.recall(request(1, "a", 2, 3, 4, 7, 7, 7), SETTINGS)
    assert (found.length, found.plan.late) == (8, late)


def test_the_least_recently_used_are_forgotten():
    memory = remembering(*(request(number, "a", 2) for number in range(9)), most=4)
    assert len(memory) == 4
    found = [memory.recall(request(number, "a", 2), SETTINGS) is not None for number in range(9)]
    assert found == [False] * 7 + [True] * 2
    memory.recall(request(7, "a", 2), SETTINGS)
    memory.remember(request(9, "b", 2), SETTINGS, Plan((KEPT,)))
    assert memory.recall(request(7, "a", 2), SETTINGS) is not None
    assert sum(sum(lengths.values()) for lengths in memory._lengths.values()) == len(memory)


def test_a_forgotten_entry_leaves_the_others():
    memory = remembering(FIRST)
    memory.look(FIRST)
    memory.forget(memory.recall(request(1, "a", 9), SETTINGS))
    assert memory.recall(request(1, "a", 9), SETTINGS) is None
    assert memory.recall(request(1, "a", 2, 3, 4), SETTINGS) is not None


def test_looks_are_counted_by_image_until_it_is_forgotten():
    memory = remembering(FIRST, plan=Plan((None,)))
    assert [memory.look(request(1, "a", number)) for number in range(3)] == [1, 2, 3]
    assert memory.look(request(1, "b", 2)) == 1
    memory.forget(memory.recall(request(1, "a", 9), SETTINGS))
    assert memory.look(request(1, "a", 3)) == 1


def test_whole_items_have_all_indices():
    items = (VisualItem("image", 3), VisualItem("image", 4))
    assert [kept.tolist() for kept in indices_of(items, (None, KEPT))] == [[0, 1, 2], [1, 3]]
