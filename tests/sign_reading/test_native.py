"""The reader of Qwen2-VL's shape is trained on what transformers' own processor and model would see."""

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    apply_rotary_pos_emb_vision,
    get_vision_position_ids,
)

from examples.demo.shipped import SMALL
from tools.reference import reference
from tools.sign_reading.native import images
from tools.sign_reading.native.model import export, new, tokenizer
from tools.sign_reading.native.prompts import NativePrompts, drop_native
from tools.sign_reading.questions import Question
from tools.sign_reading.scene import paint
from tools.sign_reading.split import example
from tools.sign_reading.training.bank import Bank, cut, labels
from tools.sign_reading.training.decoder import answer_logits, exact

QUESTION = Question("code", "What is the code on the red sign?", "417", (0,))


@pytest.fixture(scope="module")
def words():
    return tokenizer()


@pytest.fixture(scope="module")
def model(words):
    torch.manual_seed(0)
    return new(words, SMALL).eval()


@pytest.fixture(scope="module")
def checkpoint(model, words, tmp_path_factory):
    directory = tmp_path_factory.mktemp("native")
    export(model, words, directory)
    return directory


@pytest.fixture(scope="module")
def scene():
    return next(s for s in (example("test", n).scenes[0] for n in range(9)) if s.grid[0] != s.grid[1])


def test_patches_are_the_processors(checkpoint, scene):
    picture = paint(scene)
    made = AutoProcessor.from_pretrained(checkpoint).image_processor([picture], return_tensors="pt")
    torch.testing.assert_close(images.patches(np.asarray(picture)[None]), made["pixel_values"])
    assert made["image_grid_thw"].tolist() == images.sizes(scene.grid, 1).tolist()


def test_a_composed_image_has_its_tiles_labels_where_they_are_seen(scene):
    picture = np.asarray(paint(scene))
    colour, digits, of_patches, plates = labels(scene)
    bank = Bank(cut(picture), colour, digits, of_patches, plates)
    tiles = np.arange(len(bank))[None]

    class Plain:
        """No change of light."""

        def uniform(self, low, high, size):
            return np.full(size, (low + high) / 2)

    made = images.compose(bank, tiles, scene.grid, Plain())
    torch.testing.assert_close(made.pixels, images.patches(picture[None]))
    across, down = images.tokens_of(scene.grid)
    for sign in scene.signs:
        for (x, y), digit in zip(sign.digits, sign.code, strict=True):
            token = int(y) // 28 * across + int(x) // 28
            assert 1 + int(digit) in made.labels.digits[token]
            corner = int(y) % 28 // 14 * 2 + int(x) % 28 // 14
            assert made.labels.patches[4 * token + corner, 0] in [1 + int(other) for other in sign.code]
    assert len(made.labels.colour) == across * down


def test_prompts_are_the_templates_and_positions_are_the_models(checkpoint, model, words):
    grids = [(12, 8), (4, 4)]
    batch = NativePrompts(words).native_batch(grids, [[QUESTION]])
    sizes = torch.tensor([[1, 2 * down, 2 * across] for across, down in grids])
    seen = (batch.ids == model.config.image_token_id).int()
    expected, _ = model.model.get_rope_index(batch.ids, mm_token_type_ids=seen, image_grid_thw=sizes)
    assert torch.equal(batch.positions, expected)
    parts = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": QUESTION.text}]
    text = AutoProcessor.from_pretrained(checkpoint).apply_chat_template(
        [{"role": "user", "content": parts}], add_generation_prompt=True
    )
    for across, down in grids:
        text = text.replace("<|image_pad|>", "<|pad|>" * across * down, 1)
    ids = words.encode(text.replace("<|pad|>", "<|image_pad|>")).ids
    assert batch.ids[0, : len(ids)].tolist() == ids
    assert words.decode(batch.ids[0, len(ids) :].tolist()) == QUESTION.answer


def test_dropped_rows_are_what_the_reference_answers(checkpoint, words, scene):
    """Logits of the right answer on half of the tokens, in one pass and by the reference."""
    outside = reference(checkpoint)
    picture = np.asarray(paint(scene))
    image = {"pixel_values": images.patches(picture[None]), "image_grid_thw": images.sizes(scene.grid, 1)[0]}
    prompts = NativePrompts(words)
    batch = prompts.native_batch([images.tokens_of(scene.grid)], [[QUESTION]])
    visual = outside.visual_features(image)
    kept = torch.rand(1, len(visual), generator=torch.Generator().manual_seed(1)) < 0.5
    dropped = drop_native(batch, kept)
    with torch.inference_mode():
        logits = answer_logits(outside.model, dropped, visual[kept[0]][None])
    _, answer = prompts.block(QUESTION)
    ids = batch.ids[0].tolist()
    wanted = outside.teacher_forced_logprobs(
        ids[:-answer], [image], ids[-answer:], [kept[0].nonzero().flatten()]
    )
    found = logits.log_softmax(-1).gather(1, torch.tensor(ids[-answer:])[:, None]).flatten()
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert exact(logits, dropped).shape == (1,)


def test_the_model_starts_from_the_reader_of_the_other_family(model, checkpoint):
    outside = reference(SMALL).model
    ours, theirs = model.model.language_model, outside.model.language_model
    for one, other in zip(ours.layers.parameters(), theirs.layers.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert sum(file.stat().st_size for file in checkpoint.iterdir()) < 5_000_000
    loaded = Qwen2VLForConditionalGeneration.from_pretrained(checkpoint)
    names = dict(loaded.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(names[name].float(), parameter, atol=2e-3, rtol=2e-3)


def test_patches_look_around_themselves_at_first(model):
    """The first block's attention falls with distance, although no position is learnt yet."""
    picture = np.random.default_rng(0).integers(0, 255, (1, 224, 224, 3), dtype=np.uint8)
    visual, sizes = model.model.visual, images.sizes((2, 2), 1)
    with torch.inference_mode():
        embedded = visual.patch_embed(images.patches(picture))
        turns = visual.rotary_pos_emb(embedded, get_vision_position_ids(sizes, 2))
        block = visual.blocks[0]
        queries, keys, _ = block.attn.qkv(block.norm1(embedded)).view(len(embedded), 3, 3, 32).unbind(1)
        queries, keys = apply_rotary_pos_emb_vision(queries, keys, *turns)
        logits = torch.einsum("qhd,khd->hqk", queries, keys) * 32**-0.5
    attention = logits.softmax(-1).mean(0)  # [patches, patches]
    order = images.patch_order((2, 2))
    tile, patch = np.divmod(order, 64)
    y, x = tile // 2 * 8 + patch // 8, tile % 2 * 8 + patch % 8
    apart = np.maximum(abs(y[:, None] - y), abs(x[:, None] - x))
    near, far = attention[torch.from_numpy(apart <= 1)].mean(), attention[torch.from_numpy(apart > 4)].mean()
    assert near > 5 * far, (near, far)
