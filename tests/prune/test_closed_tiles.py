"""Tiles of which nothing is kept: their pixels stay behind, they are never encoded, and no answer changes."""

import asyncio
from types import SimpleNamespace

import pytest
import torch
from vllm.config import SchedulerConfig
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFieldElem,
    MultiModalFlatField,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
    PlaceholderRange,
)

from tests.support.compare import assert_same_answer
from tests.support.encoded import Encoded
from tests.support.engines import Engines, inputs
from tests.support.prompts import END, IMG, START
from vllm_sgl.model.scheduler import SGLAsyncScheduler, SGLScheduler, charge_what_is_encoded
from vllm_sgl.prune.rewrite import prune_prompt, tag_items
from vllm_sgl.visual.fields import KEPT, PLACES, ROWS, TILES
from vllm_sgl.visual.items import visual_counts
from vllm_sgl.visual.tiles import Tiles, TileSize

TILES_OF_3 = {"image": Tiles("pixels", lambda item: TileSize(1, 1, 3), "count")}


def item(first, count):
    pixels = torch.arange(first, first + count, dtype=torch.float32)[:, None].expand(count, 2)
    fields = {
        "pixels": (pixels, MultiModalFlatField(slices=[slice(0, count)])),
        "count": (torch.tensor(count), MultiModalBatchedField(keep_on_cpu=True)),
    }
    return MultiModalKwargsItem({k: MultiModalFieldElem(data=d, field=f) for k, (d, f) in fields.items()})


def make_prompt(first=12, second=6):
    """Images of four and of two tiles, so many visual tokens each, in markers; pixels number the tiles."""
    marked = [torch.tensor([False, *[True] * count, False]) for count in (first, second)]
    return {
        "type": "multimodal",
        "prompt_token_ids": [1, START, *[IMG] * first, END, 2, START, *[IMG] * second, END, 3],
        "mm_kwargs": MultiModalKwargsItems({"image": [item(0, 4), item(10, 2)]}),
        "mm_hashes": {"image": ["hash-1", "hash-2"]},
        "mm_placeholders": {
            "image": [
                PlaceholderRange(offset=offset, length=len(mask), is_embed=mask)
                for offset, mask in zip((1, first + 4), marked, strict=True)
            ]
        },
    }


def indices(*values):
    return torch.tensor(values, dtype=torch.int64)


def field(prompt, name):
    return [entry[name].data.tolist() for entry in prompt["mm_kwargs"]["image"]]


def pixels(prompt):
    return [[int(row[0]) for row in part] for part in field(prompt, "pixels")]


def test_only_open_tiles_leave():
    pruned = prune_prompt(make_prompt(), [indices(4, 9, 11), indices(0, 3)], TILES_OF_3)
    assert pixels(pruned) == [[1, 3], [10, 11]]
    assert field(pruned, "count") == [2, 2]
    assert field(pruned, TILES) == [[1, 3], [0, 1]]
    assert field(pruned, ROWS) == [6, 6]
    # Among the rows of tiles 1 and 3: the second of the one, first and last of the other.
    assert field(pruned, KEPT) == [[1, 3, 5], [0, 3]]
    assert field(pruned, PLACES) == [[0, 5, 10, 12, 13], [0, 1, 4, 7]]  # places know nothing of tiles
    sent = pruned["mm_kwargs"]["image"][0]["pixels"].data
    assert sent.untyped_storage().nbytes() == 2 * 2 * 4  # a view would take all pixels along


def test_tiles_of_several_rows_and_tokens_behind_the_last():
    """Two rows of pixels make a tile of five tokens, and two tokens of each image need no pixels."""
    tiles = {"image": Tiles("pixels", lambda item: TileSize(2, 1, 5), rest=2)}
    kept = [indices(6, 9, 11), indices(6)]
    pruned = prune_prompt(make_prompt(12, 7), kept, tiles)
    assert pixels(pruned) == [[2, 3], []]
    assert field(pruned, TILES) == [[1], []]
    assert field(pruned, ROWS) == [7, 2]
    assert field(pruned, KEPT) == [[1, 4, 6], [1]]
    assert field(pruned, "count") == [4, 2]  # nothing that tells positions changes
    assert field(tag_items(make_prompt(12, 7), tiles), TILES) == [[0, 1], [0]]


def test_the_prompt_that_came_keeps_its_pixels():
    prompt = make_prompt()
    prune_prompt(prompt, [indices(4), indices(0)], TILES_OF_3)
    assert pixels(prompt) == [[0, 1, 2, 3], [10, 11]]
    assert field(prompt, "count") == [4, 2]


def test_an_image_of_which_nothing_is_kept_sends_nothing():
    pruned = prune_prompt(make_prompt(), [indices(), indices(5)], TILES_OF_3)
    assert pixels(pruned) == [[], [11]]
    assert (field(pruned, "count"), field(pruned, ROWS)) == ([0, 1], [0, 3])
    assert (field(pruned, TILES), field(pruned, KEPT)) == ([[], [1]], [[], [2]])


def test_every_mask_comes_back_from_what_is_sent():
    """Tiles and rows say which visual tokens are meant, whatever the mask."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        kept = [(torch.rand(count, generator=generator) < 0.3).nonzero().flatten() for count in (12, 6)]
        pruned = prune_prompt(make_prompt(), kept, TILES_OF_3)
        for tiles, rows, expected in zip(field(pruned, TILES), field(pruned, KEPT), kept, strict=True):
            assert [tiles[row // 3] * 3 + row % 3 for row in rows] == expected.tolist()
            assert {row // 3 for row in rows} == set(range(len(tiles)))  # no tile in vain


def test_a_tagged_prompt_has_every_tile():
    tagged = tag_items(make_prompt(), TILES_OF_3)
    assert pixels(tagged) == [[0, 1, 2, 3], [10, 11]]
    assert (field(tagged, TILES), field(tagged, ROWS)) == ([[0, 1, 2, 3], [0, 1]], [12, 6])


@pytest.mark.parametrize("rewrite", [tag_items, lambda p, t: prune_prompt(p, [indices(0), indices(0)], t)])
def test_pixels_of_another_placeholder_are_refused_before_anything_is_sent(rewrite):
    prompt = make_prompt()
    prompt["mm_kwargs"] = MultiModalKwargsItems({"image": [item(0, 4), item(10, 3)]})
    with pytest.raises(ValueError, match="pixels of 9 visual tokens: expected the 6 of its placeholder"):
        rewrite(prompt, TILES_OF_3)


@pytest.fixture(scope="module")
def uncached(qwen2_pair):
    """1,024 tokens of a step: nine images of 112 are profiled. No features are kept."""
    engines = Engines(qwen2_pair, sgl={"feature_cache": 0}, max_num_seqs=32, max_num_batched_tokens=1024)
    yield engines
    engines.shutdown()


def in_tiles(*tiles, seed=0):
    """Some visual tokens of each of these tiles of 16."""
    generator = torch.Generator().manual_seed(seed)
    parts = [16 * tile + torch.randperm(16, generator=generator)[:5].sort().values for tile in tiles]
    return torch.cat(parts)


async def check(engines, prompt, kept, max_tokens=4):
    answer = await engines.answer_large(prune_prompt(prompt, kept, engines.tiles), max_tokens)
    assert_same_answer(answer, engines.large_reference.generate(*inputs(prompt), max_tokens, keep=kept))


async def test_closed_tiles_change_no_answer(engines, monkeypatch):
    encoded = Encoded(monkeypatch, engines.large)
    prompt = engines.render("What is written on the sign?", (300, 200), seed=60)
    assert visual_counts(prompt) == (7 * 16,)
    await check(engines, prompt, [in_tiles(1, 5)], max_tokens=8)
    assert encoded == [2]


async def test_a_later_question_encodes_only_tiles_not_seen_yet(engines, monkeypatch):
    encoded = Encoded(monkeypatch, engines.large)
    prompt = engines.render("Who?", (300, 200), seed=61)
    for number, tiles in enumerate([(1, 5), (1, 5, 6), (5,), (0, 1, 6)]):
        await check(engines, prompt, [in_tiles(*tiles, seed=number)])
    assert encoded == [2, 1, 1]


async def test_several_images_with_open_and_closed_tiles(engines, monkeypatch):
    encoded = Encoded(monkeypatch, engines.large)
    prompt = engines.render("Which of them?", (300, 200), (112, 112), (120, 240), seed=62)
    nothing = torch.zeros(0, dtype=torch.int64)
    await check(engines, prompt, [in_tiles(0, 6), nothing, in_tiles(1)])
    await check(engines, prompt, [nothing, in_tiles(0), in_tiles(1, 2, seed=1)])
    await check(engines, prompt, [nothing, nothing, in_tiles(1, seed=2)])
    assert encoded == [3, 2]


async def test_different_tiles_of_one_image_in_one_batch(uncached, monkeypatch):
    encoded = Encoded(monkeypatch, uncached.large)
    prompt = uncached.render("Who?", (300, 200), seed=63)
    masks = [[in_tiles(*tiles, seed=seed)] for seed, tiles in enumerate([(0, 3), (3, 4), (4, 6), (3,)])]
    await asyncio.gather(*(check(uncached, prompt, kept) for kept in masks))
    assert encoded == [4]  # 0, 3, 4, 6: tile 3 of the first, 4 of the second


class Begun(list):
    """Images that each step of an engine begins to encode, without steps that begin none."""

    def __init__(self, monkeypatch, engine):
        schedule = engine.scheduler.schedule

        def watching(*args, **kwargs):
            step = schedule(*args, **kwargs)
            if images := sum(map(len, step.scheduled_encoder_inputs.values())):
                self.append(images)
            return step

        monkeypatch.setattr(engine.scheduler, "schedule", watching)


async def test_a_step_under_load_encodes_no_more_than_was_profiled(uncached, monkeypatch):
    """At R = 0.09 a step's 1,024 tokens would hold all 24 prompts, whose images have 168 tiles."""
    encoded, begun = Encoded(monkeypatch, uncached.large), Begun(monkeypatch, uncached.large)
    prompts = [uncached.render("Who?", (300, 200), seed=70 + number) for number in range(24)]
    kept = [torch.arange(number % 16, 112, 12) for number in range(24)]  # 10 of 112, of every tile
    await asyncio.gather(
        *(check(uncached, prompt, [indices], 2) for prompt, indices in zip(prompts, kept, strict=True))
    )
    profiled = uncached.large.runner.mm_budget
    most = profiled.mm_max_items_per_batch["image"] * profiled.mm_max_toks_per_item["image"] // 16
    assert most == 9 * 7
    assert begun == [9, 9, 6]
    assert encoded == [9 * 7, 9 * 7, 6 * 7]


async def test_a_prompt_is_begun_with_the_images_that_a_step_has_room_for(uncached, monkeypatch):
    """Four prompts of four images with seven tiles each; the third is cut before its second image."""
    encoded, begun = Encoded(monkeypatch, uncached.large), Begun(monkeypatch, uncached.large)
    sizes = [(300, 200)] * 4
    prompts = [uncached.render("Which?", *sizes, seed=100 + 4 * number) for number in range(4)]
    kept = [torch.arange(number, 112, 12) for number in range(4)]
    await asyncio.gather(*(check(uncached, prompt, kept, 2) for prompt in prompts))
    assert begun == [4 + 4 + 1, 3 + 4]
    assert encoded == [9 * 7, 7 * 7]


def test_a_scheduler_of_the_users_stays():
    for chosen, found in [(None, SGLScheduler), ("their.Scheduler", "their.Scheduler")]:
        config = SimpleNamespace(scheduler_config=SchedulerConfig.default_factory(scheduler_cls=chosen))
        charge_what_is_encoded(config)
        assert config.scheduler_config.scheduler_cls == found


def test_asynchronous_scheduling_stays_asynchronous():
    config = SimpleNamespace(scheduler_config=SchedulerConfig.default_factory(async_scheduling=True))
    charge_what_is_encoded(config)
    assert config.scheduler_config.scheduler_cls is SGLAsyncScheduler


async def test_the_consistency_pass_sends_open_tiles_only(engines, monkeypatch):
    sent = []
    add = engines.small.engine.add_request

    def watching(id, prompt, *args, **kwargs):
        sent.append([len(entry["pixel_values_flat"].data) for entry in prompt["mm_kwargs"]["image"]])
        return add(id, prompt, *args, **kwargs)

    monkeypatch.setattr(engines.small.engine, "add_request", watching)
    prompt = engines.render("What is written on the sign?", (300, 200), seed=64)
    outcome = await engines.walk(prompt, max_tokens=4, sgl_exit_threshold=0.0)
    assert outcome.report.consistency is not None
    order = torch.sort(outcome.report.importance[0], descending=True, stable=True).indices[:5]
    assert sent == [[7], [len({int(index) // 16 for index in order})]]


@pytest.mark.parametrize("policy", ["top", "tiles:0.05"])
async def test_the_walk_sends_and_reports_open_tiles(engines, policy):
    prompt = engines.render("What is written on the sign?", (300, 200), (112, 112), seed=65)
    outcome = await engines.walk(prompt, sgl_retention=0.2, sgl_policy=policy)
    sent = [len(entry["pixel_values_flat"].data) for entry in outcome.prompt["mm_kwargs"]["image"]]
    opened = [len({int(index) // 16 for index in kept}) for kept in outcome.report.kept]
    assert sent == opened
    assert (outcome.report.tiles, outcome.report.encoded_tiles) == (8, sum(opened))
    answer = await engines.answer_large(outcome.prompt)
    assert_same_answer(answer, engines.large_reference.generate(*inputs(prompt), 8, keep=outcome.report.kept))
