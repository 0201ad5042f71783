"""The demo but for its servers: options, flags, the widened pair, the phases of a start, and the table."""

import io
import json
import re
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors import safe_open

from examples.demo import LARGE, SMALL, __main__, measuring, picture_questions, start_up, table, widened
from examples.demo.shipped import PLAIN, SETTINGS, SHIPPED_ARGS
from examples.demo.vllm_serve import environment, flags
from vllm_sgl.config import SGLConfig
from vllm_sgl.request.options import RequestOptions


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
        "--trust-remote-code", "--enforce-eager", "--dtype", "float32", "--max-model-len", "512",
    ]  # fmt: skip
    assert list(flags({"enforce_eager": False, "limit_mm_per_prompt": {"image": 2}})) == [
        "--no-enforce-eager", "--limit-mm-per-prompt", '{"image": 2}',
    ]  # fmt: skip


def test_environment_of_servers(tmp_path, monkeypatch):
    """A model on disk needs no network; tcmalloc is preloaded where it is installed."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: f"lib{name}.so.4")
    on_disk, elsewhere = environment(str(tmp_path)), environment("somebody/model")
    assert on_disk == elsewhere | {"HF_HUB_OFFLINE": "1"}
    assert elsewhere["LD_PRELOAD"].startswith("libtcmalloc_minimal.so.4")


def test_settings_are_such_that_a_server_takes():
    defaults = SGLConfig(small="S")
    for _, options in SETTINGS:
        RequestOptions.parse(options, defaults)
    assert SETTINGS[0] == (PLAIN, {"sgl_enabled": 0})


def test_the_pair_is_widened_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(widened, "GFLOP", 2.0)
    large, small = widened.widened_pair(tmp_path)
    assert large.parent == small.parent
    for model, source in ((large, LARGE), (small, SMALL)):
        config = json.loads((model / "config.json").read_text())
        own = json.loads((source / "config.json").read_text())
        assert config["llm_config"]["intermediate_size"] > own["llm_config"]["intermediate_size"]
        assert config["llm_config"]["hidden_size"] == own["llm_config"]["hidden_size"]
        with safe_open(model / "model.safetensors", "pt") as file:
            assert list(file.keys())
    assert "widening" in capsys.readouterr().out
    written = (large / "model.safetensors").stat().st_mtime_ns
    assert widened.widened_pair(tmp_path) == (large, small)
    assert (large / "model.safetensors").stat().st_mtime_ns == written
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(widened, "GFLOP", 2.5)
    assert widened.widened_pair(tmp_path)[0] != large


LOG = (
    ("(APIServer pid=1) INFO Resolved architecture: SGLInternVLChatModel", "importing vLLM"),
    ("(SmallEngineCore pid=2) INFO Initializing a V1 LLM engine (v0)", "small model: starting its engine"),
    ("(SmallEngineCore pid=2) INFO Starting to load model a...", "small model: loading"),
    ("(SmallEngineCore pid=2) INFO Loading weights took 0.1 seconds", "small model: profiling"),
    (
        "(SmallEngineCore pid=2) INFO init engine (profile, ...) took 0.1 s",
        "large model: starting its process",
    ),
    ("(EngineCore pid=3) INFO Initializing a V1 LLM engine (v0)", "large model: starting its engine"),
    ("(EngineCore pid=3) INFO Starting to load model b...", "large model: loading"),
    ("(EngineCore pid=3) INFO Loading weights took 0.1 seconds", "large model: profiling"),
    ("(EngineCore pid=3) INFO init engine (profile, ...) took 0.1 s", "both: a first request"),
)


def test_phases_of_a_start(tmp_path):
    log, out, now = tmp_path / "server.log", io.StringIO(), [0.0]
    log.write_text("")
    shown = start_up.StartUp(log, out, lambda: now[0])
    for line, _ in LOG:
        with log.open("a") as file:
            file.write(line + "\n")
        shown.look()
        now[0] += 2
    shown.ready()
    printed = out.getvalue().splitlines()
    for (_, phase), line in zip(LOG, printed, strict=False):
        assert line.strip().startswith(phase)
        assert line.endswith(" 2.0 s")
    assert printed[len(LOG)] == f"  ready after 18 s; the server's log is {log}"


def test_a_phase_that_the_log_does_not_name_is_not_shown_as_over(tmp_path):
    log, out = tmp_path / "server.log", io.StringIO()
    log.write_text(LOG[0][0] + "\n")
    shown = start_up.StartUp(log, out, lambda: 0.0)
    shown.look()
    assert out.getvalue() == ""
    log.write_text("\n".join(line for line, _ in LOG[:3]))
    shown.look()
    shown_lines = out.getvalue().splitlines()
    assert len(shown_lines) == 2
    assert [phase in line for (_, phase), line in zip(LOG, shown_lines, strict=False)] == [True, True]


def test_the_log_is_that_of_vllm():
    """The words that begin a phase are in the vLLM that is installed."""
    (vllm,) = find_spec("vllm").submodule_search_locations
    names = (
        "v1/engine/core.py",
        "v1/worker/cpu_model_runner.py",
        "model_executor/model_loader/default_loader.py",
    )
    text = "".join((Path(vllm) / name).read_text() for name in names)
    for marker, _ in start_up.PHASES[1:]:
        words = re.sub(r"\\(.)", r"\1", marker.partition(".*")[2])
        assert words in text, words


class Asker:
    """Answers as it is told: `right` by the names of settings, `seconds` likewise."""

    def __init__(self, right, seconds, decision="prune", kept=72):
        self.right, self.seconds, self.decision, self.kept = right, seconds, decision, kept
        self.asked = []

    def ask(self, question, options):
        name = next(name for name, own in SETTINGS if own == options)
        self.asked.append((name, question))
        text = question.answer if name in self.right else "nothing"
        plain = name == PLAIN
        sgl = {
            "decision": "bypass" if plain else self.decision,
            "reason": None,
            "kept_tokens": 208 if plain else self.kept,
            "visual_tokens": 208,
            "tiles": 13,
            "encoded_tiles": 13 if plain else 6,
            "score": None if plain else 0.5,
        }
        message = SimpleNamespace(message=SimpleNamespace(content=text))
        return SimpleNamespace(choices=[message], sgl=sgl), self.seconds.get(name, 0.5)


NAMES = [name for name, _ in SETTINGS]


@pytest.fixture
def question(tmp_path):
    asked = picture_questions.sign_question(picture_questions.EXPLAINED, tmp_path)
    assert asked.images[0].is_file()
    return asked


def measured(asker, *questions):
    return measuring.measure(asker, questions, SETTINGS, questions[0], io.StringIO())


def row(found, name):
    (line,) = (line for line in table.table(found).splitlines() if line.startswith(f"{name} "))
    return line.removeprefix(name).split()


def test_table_says_what_was_right_and_how_the_times_compare(question):
    found = measured(Asker({PLAIN, NAMES[2]}, {PLAIN: 0.75, NAMES[2]: 0.5}), question)
    plain, tiles = row(found, PLAIN), row(found, NAMES[2])
    assert plain[:6] == ["1", "of", "1", "0.75", "1.00", "x"]
    assert tiles[:6] == ["1", "of", "1", "0.50", "1.50", "x"]
    assert row(found, NAMES[1])[:3] == ["0", "of", "1"]
    assert plain[-3:] == ["0%", "100%", "100%"]
    assert tiles[-3:] == ["0%", "35%", "46%"]
    # Requests per second are measured, and so is the ratio.
    assert float(tiles[6]) > 0
    assert float(tiles[7]) == pytest.approx(found[2].rate / found[0].rate, abs=0.01)
    wrong = list(table.wrong_answers(found))
    assert len(wrong) == 2  # once for each setting, however often it was asked
    assert all(f"'nothing', should be {question.answer!r}" in line for line in wrong)


def test_one_wrong_answer_of_many_makes_a_question_wrong(question):
    found = measured(Asker(set(NAMES), {}), question)
    assert [one.right for one in found] == ["1 of 1"] * 4
    found[0].replies[-1][1].choices[0].message.content = "nothing"
    assert found[0].right == "0 of 1"


def test_exits_are_counted(question):
    found = measured(Asker(set(NAMES), {}, decision="exit", kept=0), question)
    assert row(found, NAMES[3])[-3:-1] == ["100%", "0%"]


def test_verdict_is_what_was_measured(question):
    quicker = measured(Asker({PLAIN}, {PLAIN: 1.0, NAMES[1]: 0.8}), question)
    assert "2.00 times as quick as plain" in table.verdict(quicker)
    assert "0 of 1 right, plain 1 of 1" in table.verdict(quicker)
    as_good = measured(Asker({PLAIN, NAMES[2]}, {PLAIN: 1.0, NAMES[2]: 0.8}), question)
    assert f"`{NAMES[2]}`: 1.25 times as quick as plain" in table.verdict(as_good)
    assert "1 of 1 right, plain 1 of 1" in table.verdict(as_good)
    slower = measured(Asker(set(NAMES), {PLAIN: 0.4}), question)
    assert "No setting was quicker than plain" in table.verdict(slower)


def test_every_setting_is_asked_alone_in_turn_and_then_in_company(question):
    asker = Asker(set(NAMES), {})
    found = measured(asker, question)
    warm_up, alone = asker.asked[:4], asker.asked[4 : 4 + 4 * measuring.LEAST]
    assert [name for name, _ in warm_up] == NAMES
    assert [name for name, _ in alone] == NAMES * measuring.LEAST
    assert [len(one.replies) for one in found] == [2 * measuring.LEAST] * 4
    assert [len(one.seconds) for one in found] == [measuring.LEAST] * 4


def test_pictures_of_unknown_answer_are_shown_with_what_was_said(question):
    asked = picture_questions.PictureQuestion(question.images, "What is this?")
    found = measured(Asker(set(), {}), asked)
    assert row(found, PLAIN)[0] == "-"
    assert not list(table.wrong_answers(found))
    lines = list(table.answers(found))
    assert len(lines) == 4
    assert lines[0] == f"  {question.images[0].name}, plain: 'nothing', bypass"
    assert lines[3].endswith(f"{NAMES[3]}: 'nothing', prune, score 0.50")


def test_progress_is_counted_on_a_terminal(question):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    measuring.measure(Asker(set(NAMES), {}), [question], SETTINGS, question, out)
    total = 2 * 4 * measuring.LEAST
    assert f"\r  1 of {total} answers, one at a time" in out.getvalue()
    assert f"\r  {total} of {total} answers, {measuring.CLIENTS} at once" in out.getvalue()
