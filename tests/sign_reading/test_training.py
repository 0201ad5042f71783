"""What the models are trained on: labels, prompts and masks, and the checkpoint that comes out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from tools.internvl_reference import native_checkpoint
from tools.sign_reading.questions import Question
from tools.sign_reading.scene import CELL, TILE, paint
from tools.sign_reading.split import example
from tools.sign_reading.training import sizes
from tools.sign_reading.training.bank import COLOUR_NAMES, PATCH, cut, labels, make
from tools.sign_reading.training.compose import Composer
from tools.sign_reading.training.decoder import answer_logits, exact, some_kept
from tools.sign_reading.training.export import export
from tools.sign_reading.training.painted import Painted
from tools.sign_reading.training.prompts import IGNORED, Prompts, drop

TINY = sizes.Size("tiny", vit_hidden=64, vit_layers=1, hidden=64, layers=2, kv_heads=1, intermediate=96)
QUESTIONS = [
    Question("code", "What is the code on the red sign?", "417", (0,)),
    Question("count", "How many signs are there?", "5", (0, 1, 2, 3, 4)),
]


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    return Prompts(sizes.tokenizer())


@pytest.fixture(scope="module")
def model(prompts):
    torch.manual_seed(3)
    return sizes.new(TINY, prompts.tokenizer).eval()


def test_labels_are_where_the_signs_are():
    for number in range(20):
        scene = example("train", number).scenes[0]
        colour, digits, patches, plates = labels(scene)
        across = scene.grid[0]
        for sign, plate in zip(scene.signs, plates, strict=True):
            assert (plate.colour, plate.code) == (sign.colour, sign.code)
            assert (colour[plate.tile, list(plate.tokens)] == 1 + COLOUR_NAMES.index(sign.colour)).all()
            for place, ((x, y), digit) in enumerate(zip(sign.digits, sign.code, strict=True)):
                tile = int(y) // TILE * across + int(x) // TILE
                token = int(y % TILE) // CELL * 4 + int(x % TILE) // CELL
                assert tile == plate.tile
                assert digits[tile, token, place] == 1 + int(digit)
                patch = int(y % TILE) // PATCH * 8 + int(x % TILE) // PATCH
                near = [1 + int(other) for other in sign.code]  # two narrow digits may share a patch
                assert patches[tile, patch, 0] in near
        assert (digits > 0).sum() == sum(len(sign.code) for sign in scene.signs)


def test_tiles_are_cut_row_by_row():
    picture = np.asarray(paint(example("test", 1).scenes[0]))
    across = picture.shape[1] // TILE
    tiles = cut(picture)
    np.testing.assert_array_equal(tiles[across + 1], picture[TILE : 2 * TILE, TILE : 2 * TILE])


def test_blocks_are_the_prompt_that_the_server_writes(prompts, tmp_path, model):
    export(model, TINY, prompts.tokenizer, tmp_path)
    served = AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=True)
    images = "\n".join(f"<img>{'<IMG_CONTEXT>' * count}</img>" for count in (3, 2))
    messages = [{"role": "user", "content": f"{images}\n{QUESTIONS[0].text}"}]
    wanted = served.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    block, answer = prompts.block(QUESTIONS[0])
    assert prompts.prefix([3, 2]) + block[:-answer] == wanted
    assert served.decode(block[-answer:]) == "417<|im_end|>"


def test_questions_in_one_row_do_not_see_each_other(prompts, model):
    visual = torch.randn(1, 5, TINY.hidden)
    with torch.inference_mode():
        together = answer_logits(model, prompts.batch([5], [QUESTIONS]), visual)
        alone = [answer_logits(model, prompts.batch([5], [[question]]), visual) for question in QUESTIONS]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_targets_are_the_answers(prompts):
    batch = prompts.batch([5], [QUESTIONS])
    text = prompts.tokenizer.decode(
        batch.targets[batch.targets != IGNORED].tolist(), skip_special_tokens=False
    )
    assert text.replace(" ", "") == "417<|im_end|>5<|im_end|>"


def test_dropped_tokens_leave_a_gap_in_the_positions(prompts):
    batch = prompts.batch([4, 2], [QUESTIONS[:1], QUESTIONS[1:]])
    kept = torch.tensor([[True, False, False, True, True, False], [False, False, False, True, True, True]])
    smaller = drop(batch, kept)
    first, second = int(batch.visual[0].nonzero()[0]), int(batch.visual[0].nonzero()[4])
    assert smaller.positions[0, smaller.visual[0]].tolist() == [first, first + 3, second]
    assert smaller.positions[1, smaller.visual[1]].tolist() == [first + 3, second, second + 1]
    assert smaller.positions[0, -1] == batch.positions[0, -1]
    assert smaller.mask.shape[-1] == smaller.ids.shape[1] == batch.ids.shape[1] - 3


def test_a_smaller_batch_answers_like_a_mask_over_the_dropped_tokens(prompts, model):
    batch = prompts.batch([6], [QUESTIONS[:1], QUESTIONS[1:]])
    kept = torch.tensor([[True, False, False, True, True, False], [False, True, False, False, True, True]])
    visual = torch.randn(2, 6, TINY.hidden)
    hidden = torch.zeros(2, batch.ids.shape[1], dtype=torch.bool)
    hidden[batch.visual] = ~kept.flatten()
    masked = replace(batch, mask=batch.mask.masked_fill(hidden[:, None, None], torch.finfo().min))
    with torch.inference_mode():
        wanted = answer_logits(model, masked, visual)
        found = answer_logits(model, drop(batch, kept), visual[kept].view(2, 3, -1))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_signs_are_never_dropped(prompts):
    shares = set()
    for seed in range(10):
        rng = np.random.default_rng(seed)
        _, batch, signed = Painted("train", prompts).draw(rng, 3)
        kept = some_kept(rng, signed)
        assert signed.shape == (3, int(batch.visual[0].sum()))
        assert signed.any(1).all()
        assert (kept >= signed).all()
        assert len(set(kept.sum(1))) == 1
        shares.add(kept.mean())
    assert max(shares) - min(shares) > 0.5


def test_exact_counts_whole_answers(prompts):
    batch = prompts.batch([5], [QUESTIONS])
    targets = batch.targets[batch.targets != IGNORED]
    logits = torch.nn.functional.one_hot(targets, prompts.tokenizer.get_vocab_size()).float()
    assert exact(logits, batch).tolist() == [True, True]
    logits[1] = logits[1].roll(1)
    assert exact(logits, batch).tolist() == [False, True]


def test_a_checkpoint_comes_back_as_it_was(prompts, model, tmp_path):
    export(model, TINY, prompts.tokenizer, tmp_path)
    loaded = native_checkpoint.load(tmp_path, prompts.image_id)
    stored = loaded.state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(stored[name], tensor.half().float(), rtol=0, atol=0)


@pytest.fixture(scope="module")
def composer(tmp_path_factory) -> Composer:
    return Composer(make(range(6), tmp_path_factory.mktemp("bank")))


class TestComposer:
    def test_few_tokens_hold_all_of_their_signs(self, composer):
        bank = composer.bank
        for seed in range(20):
            tokens, questions = composer.few(np.random.default_rng(seed), 28, 3, "code")
            assert len(tokens) == 28
            digits = bank.digits.reshape(-1, 3)[tokens]
            colours = bank.colour.ravel()[tokens]
            for question in questions:
                colour = 1 + COLOUR_NAMES.index(question.text.split(" sign")[0].split()[-1])
                found = digits[colours == colour]
                read = "".join(str(d - 1) for place in range(3) for d in found[:, place] if d > 0)
                assert read == question.answer

    def test_whole_images_ask_about_signs_that_are_there_once(self, composer):
        for seed in range(20):
            tokens, questions = composer.tiles(np.random.default_rng(seed), 9)
            assert len(tokens) == 9 * 16
            colours = composer.bank.colour.ravel()[tokens]
            for question in questions:
                if question.kind == "count":
                    assert int(question.answer) == len(set(colours[colours > 0]))
