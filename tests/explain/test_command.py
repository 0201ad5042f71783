"""The command line: what it refuses and says, and the order in which it looks."""

import json
import os
import subprocess
import sys

import pytest

from tests.explain.made_up import explanation
from tests.support.images import random_image
from vllm_sgl import cli
from vllm_sgl.commands.explain import command
from vllm_sgl.commands.explain import explanation as explanation_module


@pytest.fixture(autouse=True)
def log_level(monkeypatch):
    """The command sets it for its process, which here is every test's."""
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")


@pytest.fixture
def image(tmp_path):
    random_image(0, 60, 40).save(tmp_path / "image.png")
    return str(tmp_path / "image.png")


@pytest.fixture
def asked(monkeypatch):
    """Stands in for both models; the options that it was asked with."""
    asked = []

    def explain(options):
        asked.append(options)
        os.write(1, b"an engine says hello\n")  # as a process started from here would
        return explanation("square", "wide")

    monkeypatch.setattr(command, "_explain", explain)
    return asked


@pytest.fixture
def without_matplotlib(monkeypatch):
    import vllm_sgl.commands.explain

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("picture", "sheet"):
        monkeypatch.delitem(sys.modules, f"vllm_sgl.commands.explain.{name}", raising=False)
        monkeypatch.delattr(vllm_sgl.commands.explain, name, raising=False)


def refused(capsys, *arguments):
    """What the command says when it refuses."""
    with pytest.raises(SystemExit) as error:
        cli.main(["explain", *map(str, arguments)])
    assert error.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--retention", "0"], "--retention: expected a number in (0, 1)"),
        (["--retention", "1"], "the answer with every visual token is always shown, received '1'"),
        (["--retention", "nan"], "received 'nan'"),
        (["--retention", "much"], "received 'much'"),
        (["--exit-threshold", "1.1"], "--exit-threshold: expected a number in [0, 1], received '1.1'"),
        (["--max-tokens", "0"], "--max-tokens: expected a whole number >= 1, received '0'"),
        (["--max-tokens", "inf"], "received 'inf'"),
        (["--large-args", "dtype=float32"], "--large-args: expected an object of vLLM engine arguments"),
        (["--small-args", "[1]"], "--small-args: expected an object of vLLM engine arguments"),
        (["--query-rows", "some"], "--query-rows: invalid choice: 'some'"),
        (["-o", "out.bmp"], "--output out.bmp: expected a name that ends in .png, .pdf, .svg"),
        (["-o", "nowhere/out.png"], "expected a file in a directory that exists; make nowhere first"),
        (["--json", "nowhere/out.json"], "expected a file in a directory that exists; make nowhere first"),
    ],
)
def test_bad_settings_are_refused_before_anything_starts(capsys, asked, image, arguments, words):
    assert words in refused(capsys, "LARGE", "--small", "SMALL", image, "Who?", *arguments)
    assert not asked


def test_missing_and_unreadable_images(capsys, tmp_path, image):
    assert "absent.png: no such file. Expected LARGE IMAGE... QUESTION" in refused(
        capsys, "LARGE", image, tmp_path / "absent.png", "Who?", "--small", "SMALL"
    )
    (tmp_path / "text.png").write_text("no image")
    assert "text.png: expected an image file such as PNG or JPEG, received: " in refused(
        capsys, "LARGE", tmp_path / "text.png", "Who?", "--small", "SMALL"
    )


def test_a_pair_that_cannot_work_says_what_to_do(capsys, qwen2_pair, image):
    text = refused(capsys, qwen2_pair[1], image, "Who?", "--small", "no/such", "--trust-remote-code")
    assert "the pair does not start: --sgl-small no/such: no model there" in text


def test_a_missing_question_and_a_missing_small_model(capsys, image):
    assert "QUESTION" in refused(capsys, "LARGE", image, "--small", "SMALL")
    assert "--small" in refused(capsys, "LARGE", image, "Who?")


def test_without_matplotlib_the_remedy_is_named_first(capsys, asked, without_matplotlib, image):
    text = refused(capsys, "LARGE", image, "Who?", "--small", "SMALL")
    assert "pip install 'vllm-sgl[plot]'" in text
    assert "--json FILE" in text
    assert not asked


def test_json_needs_no_matplotlib_and_has_stdout_for_itself(capfd, asked, without_matplotlib, image):
    assert cli.main(["explain", "LARGE", image, image, "Who?", "--small", "SMALL", "--json", "-"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == json.loads(json.dumps(explanation("square", "wide").as_json()))
    assert "an engine says hello" in err
    assert "no threshold set" in err
    (options,) = asked
    assert [str(path) for path in options.images] == [image, image]
    assert options.question == "Who?"


def test_picture_and_json_by_name(capfd, asked, image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ["explain", "LARGE", "--small", "SMALL", image, "Who?"]
    assert cli.main(line) == 0
    assert "written: explain.png" in capfd.readouterr().out
    assert cli.main([*line, "-o", "a.pdf", "--json", "a.json"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"image.png", "explain.png", "a.pdf", "a.json"}
    assert json.loads((tmp_path / "a.json").read_text())["score"] == 0.6


def test_every_field_of_the_json_is_documented():
    found = explanation("square").as_json()
    entries = [found, found["images"][0], found["pruned"][0], found["small_answer"]]
    documented = explanation_module.__doc__.replace(",", " ").replace("{", " ").replace("}", " ").split()
    for name in {name for entry in entries for name in entry}:
        assert name in documented, name


def test_the_command_line_loads_neither_vllm_nor_torch():
    script = (
        "import sys\nfrom vllm_sgl import cli\n"
        "try:\n    cli.main(['explain', '--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "print([name for name in ('torch', 'vllm', 'matplotlib', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--small SMALL" in done.stdout
