"""The checkpoints of every family that other tests stand on: same bytes, usable files, answers that tell."""

import json
from dataclasses import replace
from statistics import median
from types import SimpleNamespace
from typing import get_type_hints

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoProcessor

from tests.support.images import QUESTIONS, random_image
from tests.support.processing import process, render
from tools.reference import reference, select
from tools.tiny_families import FAMILIES, LARGE, SMALL, build, build_pair
from tools.tiny_families.qwen3_5 import LAYERS
from tools.tiny_families.weights import random_weights
from tools.tiny_internvl.tokenizer import train

SIZES = [(300, 200), (112, 112), (360, 120)]


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def pair(family, tmp_path_factory):
    return build_pair(family, tmp_path_factory.mktemp(family.name))


def test_same_shape_gives_the_same_bytes(family, pair, tmp_path):
    again = build(family, SMALL, tmp_path)
    names = sorted(file.name for file in again.iterdir())
    assert names == sorted(file.name for file in pair[0].iterdir())
    for name in names:
        assert (again / name).read_bytes() == (pair[0] / name).read_bytes(), name


def test_files_are_small_and_load_without_network(family, pair):
    for path, shape in zip(pair, (SMALL, LARGE), strict=True):
        assert sum(file.stat().st_size for file in path.iterdir()) < 17e6
        config = AutoConfig.from_pretrained(path)
        assert config.architectures == [family.model.__name__]
        layers = LAYERS if family.name.startswith("qwen3_5") else shape.layers
        assert config.get_text_config().num_hidden_layers == layers
        assert type(AutoProcessor.from_pretrained(path)) is get_type_hints(family.processor)["return"]


def test_pair_shares_tokenizer_and_processor(pair):
    for name in ("tokenizer.json", "processor_config.json", "chat_template.jinja"):
        assert (pair[0] / name).read_text() == (pair[1] / name).read_text()


def test_special_tokens_are_single_tokens(family, pair):
    tokenizer = reference(pair[0]).tokenizer
    for token in family.special_tokens:
        assert tokenizer(f"a{token}b", add_special_tokens=False).input_ids.count(
            tokenizer.convert_tokens_to_ids(token)
        )


def test_another_seed_changes_every_tensor(family, pair, tmp_path):
    other = load_file(build(family, replace(SMALL, seed=99), tmp_path) / "model.safetensors")
    ours = load_file(pair[0] / "model.safetensors")
    assert ours.keys() == other.keys()
    assert all((ours[name] != other[name]).any() for name in ours)


def test_published_names_are_what_the_family_says(family, pair):
    names = load_file(pair[0] / "model.safetensors")
    assert any("vision_tower.vision_model." in name for name in names) == (family.name == "llava_onevision")


def test_a_parameter_without_a_role_is_refused():
    model = torch.nn.ModuleDict({"router": torch.nn.Linear(2, 2)})
    model.config = SimpleNamespace(model_type="of no family")
    with pytest.raises(ValueError, match=r"what the parameter 'router\.weight' is for is unknown"):
        random_weights(model, SMALL, train())


@pytest.mark.parametrize("which", [0, 1], ids=["small", "large"])
def test_answers_depend_on_the_image_and_on_what_is_kept(pair, which):
    model = reference(pair[which])
    answers, lengths, differences = set(), set(), []
    for seed, question in enumerate(QUESTIONS):
        ids, images = render(model, question, [random_image(seed, *SIZES[seed % 3])])
        tokens, logprobs = model.generate(ids, images, 16)
        answers.add(tuple(tokens))
        lengths.add(len(tokens))
        count = ids.count(model.image_token_id)
        kept = [torch.arange(0, count, 4)]
        pruned = model.teacher_forced_logprobs(ids, images, tokens[:4], kept)
        differences.append((pruned - logprobs[:4]).abs().max().item())
    # Above the tolerance of tests of pruned answers for every question, and far above it for most.
    assert min(differences) > 0.02
    assert median(differences) > 0.5
    assert len(answers) >= 7
    assert len(lengths) >= 3


def test_importance_is_far_from_uniform_and_per_question(pair):
    model = reference(pair[0])
    kept = []
    for question in QUESTIONS[:2]:
        ids, images = render(model, question, [random_image(3, 300, 200)])
        (scores,) = model.importance(ids, images, model.generate(ids, images, 8).tokens)
        assert scores.max() > 3 * scores.min()
        kept.append(set(select([scores], 0.2)[0].tolist()))
    assert kept[0] != kept[1]


def test_images_of_different_size_have_different_counts(pair):
    model = reference(pair[0])
    counts = {len(model.visual_features(process(pair[0], random_image(0, *size)))) for size in SIZES}
    assert len(counts) == 3
    limits = json.loads((pair[0] / "config.json").read_text())
    assert max(counts) < limits["text_config"]["max_position_embeddings"]
