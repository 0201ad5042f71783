"""The command line: what it refuses, what it tells, what it writes, and how it ends."""

import json
import random
import re
import subprocess
import sys

import pytest
from PIL import Image

from vllm_sgl import cli
from vllm_sgl.commands.calibrate import asking
from vllm_sgl.commands.calibrate.losses import Requests
from vllm_sgl.config import SGLConfig
from vllm_sgl.evaluate.backends import Reply
from vllm_sgl.request.options import RequestOptions

COUNT = 240


class Pair:
    """A made-up pair: the small model is wrong below a score of 0.5, pruning to 0.1 loses every tenth
    question, and to 0.5 none."""

    def __init__(self):
        self.asked = 0

    def answer(self, asks):
        return [self._one(ask) for ask in asks]

    def _one(self, ask):
        self.asked += 1
        number = int(ask.question.id)
        score = random.Random(number).random()
        keys = {k: v for k, v in ask.xargs.items() if k.startswith("sgl_")}
        options = RequestOptions.parse(keys, SGLConfig(small="S"))
        if not options.enabled:
            decision, reason, wrong = "bypass", "disabled", False
        elif options.exit_threshold == 0:
            decision, reason, wrong = "exit", None, score < 0.5
        else:
            decision, reason, wrong = "prune", None, options.retention < 0.5 and number % 10 == 0
        kept = {"bypass": 100, "exit": 0, "prune": int(100 * options.retention)}[decision]
        sgl = {
            "decision": decision, "reason": reason, "visual_tokens": 100, "kept_tokens": kept, "tiles": 4,
            "encoded_tiles": 4, "score": score if decision == "exit" else None,
        }  # fmt: skip
        return Reply("wrong" if wrong else str(number), 120, 3, sgl)

    def close(self):
        pass


@pytest.fixture
def pair(monkeypatch):
    pair = Pair()
    monkeypatch.setattr(asking, "engines", lambda *arguments: pair)
    monkeypatch.setattr(asking, "endpoint", lambda *arguments: pair)
    return pair


@pytest.fixture
def questions(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "one.png")

    def image(number):
        """A file of its own for each."""
        (tmp_path / f"{number}.png").unlink(missing_ok=True)
        (tmp_path / f"{number}.png").hardlink_to(tmp_path / "one.png")
        return f"{number}.png"

    def write(count=COUNT, answers=True):
        path = tmp_path / "questions.jsonl"
        lines = [
            {"id": str(i), "image": image(i), "question": "?", **({"answers": [str(i)]} if answers else {})}
            for i in range(count)
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    return write


@pytest.fixture
def logged(tmp_path):
    """A shadow log in which the small model is wrong below a score of 0.5."""

    def write(count=COUNT, **more):
        lines = []
        for number in range(count):
            score = random.Random(number).random()
            line = {
                "decision": "exit", "exit_threshold": 0.0, "score": score, "agrees": score >= 0.5,
                "visual_tokens": 100, "prompt_tokens": 120, "tiles": 4, "finish_reason": "stop", **more,
            }  # fmt: skip
            lines.append(json.dumps(line) + "\n")
        path = tmp_path / "shadow.jsonl"
        path.write_text("".join(lines))
        return path

    return write


def run(*arguments):
    return cli.main(["calibrate", *map(str, arguments)])


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as error:
        run(*arguments)
    assert error.value.code == 2
    return " ".join(capsys.readouterr().err.split())


LINE = ["L", "--small", "S", "--max-loss", "5%", "--retention", "0.5", "0.1"]


@pytest.mark.parametrize("answers", [True, False], ids=["answers", "agreement"])
def test_the_cheapest_setting_that_can_be_promised(pair, questions, tmp_path, capsys, answers):
    out = tmp_path / "out"
    data = questions(answers=answers)
    assert run(*LINE, "--data", data, "--out", out) == 0
    text = capsys.readouterr().out
    assert pair.asked == COUNT * 10
    found = json.loads((out / "calibration.json").read_text())
    chosen = found["chosen"]
    assert chosen["retention"] == 0.5
    assert 0.4 < chosen["exit_threshold"] < 0.55
    last = [tested for tested in found["tests"] if tested["passed"]][-1]
    assert last["p_value"] <= 0.1
    assert last["lost"] / last["n"] <= last["bound"] <= 0.05
    assert found["requests"] == {"all": COUNT, "ordering": 80, "testing": 160, "fewest": 67}
    assert (found["max_loss"], found["confidence"]) == (0.05, 0.9)
    threshold = f"--sgl-exit-score paper --sgl-exit-threshold {chosen['exit_threshold']:g}"
    flags = f"--sgl-retention 0.5 --sgl-policy top {threshold}"
    assert found["serve"] == f"vllm serve L --sgl-small S {flags}"
    assert f"  {found['serve']}\n" in text
    assert "promised: at most 5 %, with 90 % confidence" in text
    assert ("the large model's own answer" in text) is not answers
    (profile,) = re.findall(r"--sgl-profile calibrated='(.*)'", text)
    assert SGLConfig.parse({"small": "S", "profiles": {"calibrated": json.loads(profile)}}).profiles == {
        "calibrated": chosen
    }
    with Image.open(out / "calibration.png") as picture:
        assert picture.width > 1500
    assert len(Requests.parse(json.loads((out / "requests.json").read_text()))) == COUNT
    assert run(*LINE, "--data", data, "--out", out) == 0  # everything is answered
    assert pair.asked == COUNT * 10
    assert capsys.readouterr().out == text
    assert run(*LINE, "--data", data, "--out", out, "--no-picture", "--retention", "0.5", "0.2") == 0
    assert pair.asked == COUNT * 12  # what is new is asked


def test_a_pair_that_does_not_pay_is_told(pair, questions, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [*LINE, "--data", questions(), "--out", out, "--no-picture"]
    out.mkdir()
    slow = {"guide": [9.0, 0.0], "decode": 0.0, "prefill": [[32, 0.1], [64, 0.2]], "vision": 0.0}
    (out / "costs.json").write_text(json.dumps(slow))
    assert run(*arguments) == 0
    text = capsys.readouterr().out
    assert "(seconds of both models' passes)" in text
    assert "That is no gain: for this pair and these questions the large model alone costs less" in text
    assert run(*arguments, "--cost", "tokens") == 0
    text = capsys.readouterr().out
    assert "(visual tokens that the large model is given)" in text
    assert "no gain" not in text


def test_a_server_is_asked_in_the_same_ways(pair, questions, tmp_path):
    out = tmp_path / "out"
    arguments = ["--base-url", "http://there/v1", "--max-loss", "5%", "--policy", "top", "--no-picture"]
    assert run(*arguments, "--data", questions(), "--out", out) == 0
    assert json.loads((out / "calibration.json").read_text())["serve"].startswith(
        "vllm serve LARGE --sgl-small SMALL"
    )


def test_too_few_requests_are_told_before_anybody_is_asked(pair, questions, tmp_path, capsys):
    data = questions(count=40)
    assert run("L", "--small", "S", "--data", data, "--out", tmp_path / "out") == 1
    text = capsys.readouterr().out
    assert "40 requests are too few to promise a loss of at most 1 % with 90 % confidence" in text
    assert "That takes 344 at least (230 that test" in text
    assert (
        "With 40 no loss below 8.2 % can be promised: give more requests, or --max-loss 8.18% or more" in text
    )
    assert pair.asked == 0
    assert run("L", "--small", "S", "--data", data, "--out", tmp_path / "out", "--max-loss", "8.18%") in (
        0,
        1,
    )
    assert pair.asked > 0


def test_nothing_that_can_be_promised_is_told_with_what_can_be_said(pair, questions, tmp_path, capsys):
    arguments = [*LINE[:3], "--retention", "0.1", "--exit-threshold", "0.1", "--max-loss", "3%"]
    assert run(*arguments, "--data", questions(), "--out", tmp_path / "out") == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "No setting can be promised. The mildest one, 10% kept (top), no exits, lost" in text
    assert "More requests would not help" in text
    found = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert (found["chosen"], found["serve"]) == (None, None)
    (level,) = re.findall(r"Try --max-loss ([0-9.]+%)", text)
    assert run(*arguments[:-1], level, "--data", questions(), "--out", tmp_path / "out") == 0  # as it says


def test_a_shadow_s_log_gives_a_threshold(logged, tmp_path, capsys):
    assert run("--log", logged(), "--max-loss", "5%", "--out", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert found["chosen"]["retention"] == 1
    assert 0.45 < found["chosen"]["exit_threshold"] < 0.55
    assert (
        "vllm serve LARGE --sgl-small SMALL --sgl-retention 1 --sgl-exit-score paper --sgl-exit-threshold 0."
        in capsys.readouterr().out
    )


def test_below_the_log_s_own_threshold_nothing_is_known(logged, tmp_path):
    log = logged(exit_threshold=0.6)
    assert run("--log", log, "--max-loss", "5%", "--out", tmp_path / "out", "--no-picture") == 0
    found = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert min(tested["exit_threshold"] for tested in found["tests"]) >= 0.6


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"exit_threshold": None}, "start the shadow server with --sgl-exit-threshold 0"),
        ({"finish_reason": "abort"}, "no requests; expected one JSON object a line"),
    ],
)
def test_a_log_that_is_of_no_use(logged, capsys, more, words):
    assert words in refused(capsys, "--log", logged(**more))


def test_a_log_of_something_else(tmp_path, capsys):
    path = tmp_path / "log.jsonl"
    path.write_text('{"decision": "exit"}\n')
    text = refused(capsys, "--log", path)
    assert f"{path}:1: expected a line of --sgl-shadow-log, with exit_threshold, score, agrees" in text
    assert "cannot be read" in refused(capsys, "--log", tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["L", "--small", "S"], "expected --data FILE of questions, or --log FILE"),
        (["--data", "d", "--log", "l"], "expected --data FILE of questions, or --log FILE"),
        (["--data", "d"], "expected LARGE and --small SMALL to start them, or --base-url URL"),
        (["--log", "l", "--base-url", "u"], "a log is read, no server is asked"),
        (["--log", "l", "--metric", "anls"], "a log says only whether answers agree"),
        (
            ["--max-loss", "0"],
            "--max-loss: expected a share between 0 and 1, such as 0.01 or 1%, received '0'",
        ),
        (["--max-loss", "much"], "received 'much'"),
        (["--confidence", "100%"], "--confidence: expected a share between 0 and 1"),
        (["--retention", "2"], "--retention: expected a number in (0, 1], received '2'"),
        (["--log", "l", "--policy", "best"], "--policy: expected the name of a policy, 'top' or 'tiles'"),
        (["--log", "l", "--policy", "auto"], "--policy auto: expected the policies that it chooses from"),
        (["--log", "l", "--policy", "tiles:7"], "a number in (0, 1], as in 'tiles:0.13'; received '7'"),
        (["L", "--small", "S", "--data", "none.jsonl"], "none.jsonl: cannot be read"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_starts(capsys, pair, arguments, words):
    assert words in refused(capsys, *arguments)
    assert pair.asked == 0


def test_answers_in_some_lines_only(questions, capsys):
    path = questions()
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([lines[0], json.dumps({"id": "x", "image": "one.png", "question": "?"})]) + "\n"
    )
    text = refused(capsys, *LINE, "--data", path)
    assert "answers: expected in every line or in none; 1 of 2 lack them, the first is 'x'" in text


def test_without_matplotlib_the_remedy_is_named_first(capsys, monkeypatch, pair, questions, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = refused(capsys, *LINE, "--data", questions())
    assert "pip install 'vllm-sgl[plot]', or do without it: --no-picture" in text
    assert run(*LINE, "--data", questions(), "--out", tmp_path / "out", "--no-picture") == 0
    assert not (tmp_path / "out" / "calibration.png").exists()


def test_the_command_line_loads_neither_vllm_nor_numpy():
    script = (
        "import sys\nfrom vllm_sgl import cli\n"
        "try:\n    cli.main(['calibrate', '--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "print([name for name in ('torch', 'vllm', 'matplotlib', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
