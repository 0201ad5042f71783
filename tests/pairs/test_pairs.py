"""``vllm-sgl pairs``: what it says of two models is what a server would do with them."""

import json
import shutil
from pathlib import Path

import pytest

from tests.translated.pairs import other_format, other_tokenizer
from tools import tiny_families
from vllm_sgl import cli
from vllm_sgl.commands.pairs.judging import judge_pair
from vllm_sgl.families import ACTIVE_ENV, FAMILIES, internvl
from vllm_sgl.pair import known
from vllm_sgl.visual.layout import tiled


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv(ACTIVE_ENV, "")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "INFO")


@pytest.fixture(scope="module")
def pair(qwen2_pair, tmp_path_factory):
    """(small, large) without their weights."""
    folder = tmp_path_factory.mktemp("no-weights")
    no_weights = shutil.ignore_patterns("*.safetensors")
    return tuple(shutil.copytree(path, folder / path.name, ignore=no_weights) for path in qwen2_pair)


@pytest.fixture
def small_copy(pair, tmp_path):
    return shutil.copytree(pair[0], tmp_path / "small")


def judge(small, large):
    return judge_pair(str(small), str(large), trust_remote_code=True)


def edit(checkpoint, change):
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def test_a_shared_prompt(pair):
    judged = judge(*pair)
    assert (judged.way, judged.refused) == ("shared prompt", False)
    assert "one rendering serves both" in judged.cost


def test_translated_with_shared_pixels(tmp_path):
    judged = judge(*other_tokenizer(tmp_path))
    assert judged.way == "translated"
    assert judged.why == "same image tiling; another tokenizer, another chat template"
    assert "processed once for both models; requests that name, count or ask for token ids" in judged.cost


def test_translated_with_pixels_of_its_own(tmp_path):
    judged = judge(*other_format(tmp_path))
    assert judged.way == "translated"
    assert "another prompt format" in judged.why
    assert "processed a second time too" in judged.cost


@pytest.mark.parametrize(
    ("small", "large", "way", "why"),
    [
        ("qwen3_vl", "qwen3_vl_moe", "shared prompt", "same tokenizer, chat template and image tiling"),
        ("glm4v", "glm4v_moe", "shared prompt", "same tokenizer, chat template and image tiling"),
        # transformers reads Qwen3.5's tokenizer files in a way of its own: numbers come digit by digit.
        ("qwen3_vl", "qwen3_5", "translated", "same image tiling; another tokenizer"),
        ("qwen3_vl", "glm4v", "crossed", "another tokenizer, another prompt format, another image tiling"),
    ],
)
def test_formats_are_facts_of_families(small, large, way, why, tmp_path):
    """Not of architectures: dense and MoE models of one format share a prompt."""
    shapes = (small, tiny_families.SMALL), (large, tiny_families.LARGE)
    paths = [
        tiny_families.build(tiny_families.FAMILIES[name], shape, tmp_path / shape.name)
        for name, shape in shapes
    ]
    judged = judge(*paths)
    assert (judged.way, judged.why) == (way, why)


def tiles(config):
    config["max_dynamic_patch"] = 4


def window(config):
    config["llm_config"].update(use_sliding_window=True, sliding_window=512, max_window_layers=0)


def family(config):
    decoder = config["llm_config"]
    config.clear()
    config.update(decoder)


def test_a_guide_with_fewer_tiles(pair, small_copy):
    """By its own files, or by what a server is given for it."""
    edit(small_copy, tiles)
    few = {"mm_processor_kwargs": {"max_dynamic_patch": 4}}
    for judged in (judge(small_copy, pair[1]), judge_pair(*map(str, pair), True, few)):
        assert (judged.way, judged.refused) == ("crossed", False)
        assert judged.why == "another image tiling"
        assert "its images are processed a second time too; of an image of 1024 x 768 pixels" in judged.cost
        assert judged.cost.endswith("the small model sees 80 visual tokens, the large one has 112")
    assert judge_pair(*map(str, pair), True).way == "shared prompt"


def test_families_cross(pair, tmp_path):
    """A server would give the small model of another architecture none of the large one's settings."""
    small = tiny_families.build(tiny_families.FAMILIES["qwen2_vl"], tiny_families.SMALL, tmp_path / "qwen")
    judged = judge_pair(str(small), str(pair[1]), True, mm_processor_kwargs={"max_dynamic_patch": 4})
    assert judged.way == "crossed"
    assert judged.why == "another tokenizer, another prompt format, another image tiling"
    assert "the small model sees 117 visual tokens, the large one has 80" in judged.cost


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        (
            "internvl_hf",
            {
                "image_processor_type": "CLIPImageProcessor",
                "size": {"shortest_edge": 112},
                "crop_size": {"height": 112, "width": 112},
            },
            "images go through CLIPImageProcessor, where GotOcr2ImageProcessor is known: add how that one "
            "cuts an image to layout_of in vllm_sgl/families/internvl_hf.py, and a case to tests/families/",
        ),
        (
            "qwen2_vl",
            {"do_center_crop": True, "crop_size": {"height": 56, "width": 56}},
            "image processor has do_center_crop=True, which leaves out an image's border: set it to False in "
            "the model's files, or take it into account in layout_of in vllm_sgl/families/qwen_vl.py",
        ),
        (
            "llava_onevision",
            {"do_resize": False},
            "image processor has do_resize=False, which leaves the size of what is cut",
        ),
    ],
)
def test_image_processors_that_are_not_known(pair, tmp_path, family, changes, words):
    small = tiny_families.build(tiny_families.FAMILIES[family], tiny_families.SMALL, tmp_path / family)
    path = small / "processor_config.json"
    config = json.loads(path.read_text())
    config["image_processor"].update(changes)
    path.write_text(json.dumps(config))
    for models in ((small, pair[1]), (pair[0], small)):
        judged = judge(*models)
        assert judged.refused
        assert f"that is not known ({small}: its {words}" in judged.why


def test_visual_tokens_that_are_not_as_many_as_boxes(pair, small_copy, monkeypatch):
    """As a setting of an image processor would have it that nobody knows yet."""
    edit(small_copy, tiles)
    monkeypatch.setattr(internvl, "tiled", lambda *args: tiled(*args[:3], False))
    judged = judge(small_copy, pair[1])
    assert judged.refused
    assert "an image of 960 x 480 pixels has 48 visual tokens, where 32 are expected" in judged.why
    assert "in vllm_sgl/families/internvl.py does not know a setting of the image processor" in judged.why


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (window, "see only the last 512 tokens"),
        (family, "received Qwen2ForCausalLM"),
    ],
)
def test_refused_as_at_start(pair, small_copy, change, words):
    edit(small_copy, change)
    judged = judge(small_copy, pair[1])
    assert (judged.way, judged.refused) == ("refused", True)
    assert words in judged.why
    assert judged.cost is None


def test_a_model_that_is_not_there(pair, tmp_path):
    assert "no model there" in judge(tmp_path / "nowhere", pair[1]).why
    assert judge(pair[0], tmp_path / "nowhere").refused


def test_every_model_is_tried_as_the_guide_of_those_after_it(pair, small_copy, capsys):
    edit(small_copy, window)
    models = [str(path) for path in (small_copy, *pair)]
    assert cli.main(["pairs", "--trust-remote-code", *models]) == 1
    first = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert first == [
        f"{models[0]} -> {models[1]}: refused",
        f"{models[0]} -> {models[2]}: refused",
        f"{models[1]} -> {models[2]}: shared prompt",
    ]


def test_the_exit_status_of_good_pairs(pair):
    assert cli.main(["pairs", "--trust-remote-code", *map(str, pair)]) == 0


def test_engine_arguments_of_the_small_model(pair, capsys):
    few = '--small-args={"mm_processor_kwargs": {"max_dynamic_patch": 4}}'
    assert cli.main(["pairs", "--trust-remote-code", few, *map(str, pair)]) == 0
    assert ": crossed\n" in capsys.readouterr().out


def test_one_model_is_no_pair(capsys):
    with pytest.raises(SystemExit):
        cli.main(["pairs", "one"])
    assert "expected two models or more" in capsys.readouterr().err


def test_the_table_has_every_family(capsys):
    assert cli.main(["pairs"]) == 0
    printed = capsys.readouterr().out
    assert {series.architecture for series in known.SERIES} == set(FAMILIES)
    for series in known.SERIES:
        assert f"| `{series.architecture}` | {series.name} |" in printed
    table = "\n".join(line for line in printed.splitlines() if line.startswith("|"))
    root = Path(__file__).parents[2]
    assert table in (root / "docs/families.md").read_text()
    named = (root / "README.md").read_text().partition("## Which pairs")[2].partition("\n## ")[0]
    for series in known.SERIES:
        assert series.name.split()[0].rstrip(",") in named
