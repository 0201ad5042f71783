"""The demo but for its servers: options, flags, and the table."""

from types import SimpleNamespace

import pytest

from examples.demo import LARGE, SMALL, __main__, picture_questions, table
from examples.demo.shipped import SHIPPED_ARGS
from examples.demo.vllm_serve import environment, flags


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--large", "some/model"], "--large and --small go together"),
        (["--image", "no-such.png"], "--image no-such.png: no such file"),
        (["--engine-args", "[1]"], "--engine-args"),
    ],
)
def test_options_that_are_refused(arguments, text, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["demo", *arguments])
    with pytest.raises(SystemExit, match="2"):
        __main__.main()
    assert text in capsys.readouterr().err


def test_shipped_pair_is_there():
    assert (LARGE / "config.json").is_file()
    assert (SMALL / "config.json").is_file()


def test_engine_arguments_become_flags():
    assert list(flags(SHIPPED_ARGS))[:6] == [
        "--trust-remote-code", "--enforce-eager", "--dtype", "float32", "--max-model-len", "1024",
    ]  # fmt: skip
    assert list(flags({"enforce_eager": False, "limit_mm_per_prompt": {"image": 2}})) == [
        "--no-enforce-eager", "--limit-mm-per-prompt", '{"image": 2}',
    ]  # fmt: skip


def test_a_model_on_disk_needs_no_network(tmp_path):
    assert environment(str(tmp_path))["HF_HUB_OFFLINE"] == "1"
    assert environment("somebody/model") is None


def test_table(tmp_path, capsys):
    asked = picture_questions.sign_question(picture_questions.EXPLAINED, tmp_path)
    assert asked.images[0].is_file()

    class Wrong:
        """Right with SGL off, wrong where anything was pruned."""

        def ask(self, question, options):
            text = question.answer if "sgl_enabled" in options else "nothing"
            sgl = {"decision": "prune", "kept_tokens": 72, "visual_tokens": 208, "score": None}
            message = SimpleNamespace(message=SimpleNamespace(content=text))
            return SimpleNamespace(choices=[message], sgl=sgl), 0.25

    table.ask_everything(Wrong(), [asked], asked)
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split()[-7:] == ["yes", "prune", "72", "/", "208", "-", "250"]
    assert f"no: {asked.answer}" in printed[2]
    assert printed[5:8] == [
        "SGL off     1 of 1 right, median 250 ms",
        "keep 35%    0 of 1 right, median 250 ms",
        "exit at 0.9 0 of 1 right, median 250 ms",
    ]
