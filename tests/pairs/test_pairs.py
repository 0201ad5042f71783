"""``vllm-sgl pairs``: what it says of two models is what a server would do with them."""

import json
import shutil

import pytest

from tests.translated.pairs import other_format, other_tokenizer
from vllm_sgl import cli
from vllm_sgl.commands.pairs import known
from vllm_sgl.commands.pairs.judging import judge_pair
from vllm_sgl.families import ACTIVE_ENV, FAMILIES


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


def tiles(config):
    config["max_dynamic_patch"] = 4


def window(config):
    config["llm_config"].update(use_sliding_window=True, sliding_window=512, max_window_layers=0)


def family(config):
    decoder = config["llm_config"]
    config.clear()
    config.update(decoder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (tiles, "their image tiling differs ((large, small): {'max_dynamic_patch': (6, 4)})"),
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
    edit(small_copy, tiles)
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
