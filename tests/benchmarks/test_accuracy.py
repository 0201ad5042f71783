"""`python -m benchmarks.accuracy` over the tiny pair: every method's answers are those of transformers."""

import json
import re

import pytest
import torch
from PIL import Image

from benchmarks.accuracy import __main__ as command
from benchmarks.accuracy import answerer
from benchmarks.accuracy.asking import Reply
from benchmarks.accuracy.baselines import cdpruner, divprune, tome
from benchmarks.accuracy.rankings import Rankings, box_importance
from benchmarks.accuracy.settings import METHODS
from tests.support.question_file import SIZES, write_questions
from tests.support.rendering import chat_prompt, render
from tools.internvl_reference import fastv
from tools.internvl_reference.tiling import Tiling
from tools.reference import reference, select
from vllm_sgl.evaluate.questions import load

MAX_TOKENS = 5
RETENTION = 0.35
ARGUMENTS = {
    "enforce_eager": True, "dtype": "float32", "max_model_len": 640, "kv_cache_memory_bytes": 64 << 20,
    "max_num_seqs": 16, "limit_mm_per_prompt": {"image": 2},
}  # fmt: skip


class Outside:
    """The pair in transformers, and the questions as it sees them."""

    def __init__(self, pair, file):
        self.path, self.small, self.large = pair[0], reference(pair[0]), reference(pair[1])
        self.tiling = Tiling.of(json.loads((pair[1] / "config.json").read_text()))
        self.questions = load(file)

    def rendered(self, question, resize=None):
        images = [Image.open(path).convert("RGB") for path in question.images]
        if resize:
            images = [image.resize(resize(*image.size), Image.Resampling.BICUBIC) for image in images]
        return render(self.path, chat_prompt(question.text, len(images)), images)

    def answer(self, model, rendered, keep=None):
        tokens = model.generate(*rendered, MAX_TOKENS, keep=keep).tokens
        return model.tokenizer.decode(tokens, skip_special_tokens=True)

    def expected(self, method, question):
        """What the method should answer."""
        seen = self.rendered(question)
        counts = [len(pixels) * self.tiling.cells**2 for pixels in seen[1]]
        if method in ("full", "small"):
            return self.answer({"full": self.large, "small": self.small}[method], seen)
        if method == "downsample":

            def resize(*size):
                budget = RETENTION * self.tiling.tokens(self.tiling.grid(*size))
                return self.tiling.downsampled(*size, budget)

            return self.answer(self.large, self.rendered(question, resize))
        if method in ("random", "blind", "frames"):
            rankings = Rankings([], self.path, self.tiling, self.path / "no-cache", MAX_TOKENS, seed=0)
            ranking = "frames" if method == "frames" else "random"
            importance = rankings.importance(ranking, question.id, None, counts)
        elif method == "box":
            importance = box_importance(question, self.tiling)
        elif method == "fastv":
            importance = fastv.importance(self.large, *seen)
        elif method == "tome":
            kept = max(1, int(RETENTION * sum(counts)))
            tokens = tome.generate(self.large, *seen, kept, MAX_TOKENS).tokens
            return self.large.tokenizer.decode(tokens, skip_special_tokens=True)
        elif method in ("divprune", "cdpruner", "dpp"):
            visual = torch.cat([self.large.visual_features(pixels) for pixels in seen[1]])
            encoded = torch.cat([cdpruner.encoder_features(self.large, pixels) for pixels in seen[1]])
            words = cdpruner.text_features(self.large, question.text)
            order = {
                "divprune": divprune.order(visual),
                "cdpruner": cdpruner.order(encoded, cdpruner.relevance(visual, words)),
                "dpp": cdpruner.order(encoded, torch.ones(len(visual))),
            }[method]
            count = max(1, int(RETENTION * sum(counts)))
            chosen = torch.zeros(sum(counts)).index_fill(0, order[:count], 1).split(counts)
            return self.answer(self.large, seen, [part.nonzero().flatten() for part in chosen])
        else:
            model = {"sgp": self.small, "oracle": self.large}[method]
            importance = model.importance(*seen, model.generate(*seen, MAX_TOKENS).tokens)
        keep = select(importance, 0.001 if method == "blind" else RETENTION)
        return self.answer(self.large, seen, keep)


@pytest.fixture(scope="module")
def outside(qwen2_pair, tmp_path_factory):
    """The first two questions' right answer is what the large model says, the third's what the small does."""
    folder = tmp_path_factory.mktemp("questions")
    found = Outside(qwen2_pair, write_questions(folder))
    models = (found.large, found.large, found.small)
    answers = [found.answer(m, found.rendered(q)) for m, q in zip(models, found.questions, strict=False)]
    found.file = write_questions(folder, [*answers, "never said"])
    found.questions = load(found.file)
    return found


@pytest.fixture(scope="module")
def command_line(qwen2_pair, outside, tmp_path_factory):
    small, large = map(str, qwen2_pair)
    out = tmp_path_factory.mktemp("accuracy")
    arguments = [
        large, "--small", small, "--data", str(outside.file), "--out", str(out), "--trust-remote-code",
        "--max-tokens", str(MAX_TOKENS), "--retention", "1", str(RETENTION), "--exit-threshold", "0.26",
        "--large-args", json.dumps(ARGUMENTS), "--concurrency", "3",
    ]  # fmt: skip
    return arguments, out


@pytest.fixture(scope="module")
def out(command_line):
    arguments, out = command_line
    assert command.main(arguments) == 0
    return out


@pytest.fixture(scope="module")
def records(out):
    lines = (out / "answers.jsonl").read_text().splitlines()[1:]
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("method", METHODS)
def test_answers_are_the_references(outside, records, method):
    found = {r["question"]: r for r in records if r["method"] == method and r["exit_threshold"] is None}
    asked = {"box": lambda question: question.boxes, "frames": lambda question: len(question.images) > 1}
    questions = list(filter(asked.get(method, bool), outside.questions))
    assert found.keys() == {question.id for question in questions}
    for question in questions:
        assert found[question.id]["answer"] == outside.expected(method, question), question.id


def test_records_say_what_was_used(records):
    one = {(r["method"], r["exit_threshold"]): r for r in records if r["question"] == "0"}
    assert one["full", None]["visual_tokens"] == one["full", None]["kept_tokens"] == 112
    assert one["sgp", None]["kept_tokens"] == one["random", None]["kept_tokens"] == 39
    assert one["blind", None]["kept_tokens"] == 1
    assert one["downsample", None]["visual_tokens"] == one["downsample", None]["kept_tokens"] == 16
    assert one["downsample", None]["share"] == 16 / 112
    assert one["tome", None]["kept_tokens"] == 39
    assert one["tome", None]["share"] == 39 / 112
    without_exits = {method: record for (method, exits), record in one.items() if exits is None}
    tiles = {method: (record["tiles"], record["encoded_tiles"]) for method, record in without_exits.items()}
    assert {tiles[method] for method in ("full", "fastv", "divprune", "tome")} == {(7, 7)}
    assert (tiles["blind"], tiles["small"], tiles["downsample"]) == ((7, 1), (7, 0), (1, 1))
    assert 3 <= tiles["sgp"][1] <= 7  # 39 tokens of 16 a tile
    assert one["small", None]["exited"] is True
    assert 0 < one["small", None]["score"] < one["small", None]["confidence"] < 1


def test_figures(out):
    found = json.loads((out / "accuracy.json").read_text())
    rows = {
        row["setting"]["method"]: row for row in found["rows"] if row["setting"]["exit_threshold"] is None
    }
    assert rows["full"]["accuracy"]["exact"]["value"] == 0.5
    assert [rows["full"]["kinds"][kind]["value"] for kind in ("code", "count")] == [0.5, 0.5]
    assert (rows["full"]["cost"], rows["full"]["encoded"]) == (1, 1)
    assert 1 / 7 <= rows["blind"]["encoded"] < rows["sgp"]["encoded"] <= 1
    assert rows["small"]["cost"] < rows["random"]["cost"] < rows["sgp"]["cost"]
    assert rows["oracle"]["cost"] is None
    assert rows["tome"]["cost"] < rows["random"]["cost"] < rows["divprune"]["cost"] < rows["cdpruner"]["cost"]
    assert rows["random"]["cost"] < rows["fastv"]["cost"] < 1
    assert rows["small"]["accuracy"]["exact"]["value"] == 0.25
    assert rows["full"]["small_wrong"]["exact"]["n"] == 3
    assert rows["box"]["n"] == 3
    assert found["exit_score_auc"]["value"] in (0, 1 / 3, 2 / 3, 1)  # one right answer among three wrong ones
    assert [curve["retention"] for curve in found["exits"]] == [1, RETENTION]
    for check in found["exit_checks"]:
        assert check["share"] == check["expected_share"] == 0.5
        assert check["accuracy"] == check["expected_accuracy"]
    assert found["run"]["data"] == "questions.jsonl"
    for name in ("accuracy.png", "exits.png"):
        with Image.open(out / name) as picture:
            assert picture.width > 1000
    assert not (out / "variants.png").exists()


def test_a_finished_run_asks_nothing_and_a_cut_one_the_rest(command_line, out, monkeypatch):
    arguments, _ = command_line
    asked = []

    class Fake:
        def __init__(self, *arguments):
            pass

        def answer(self, asks):
            asked.extend((ask.question.id, ask.setting.method) for ask in asks)
            tokens = [{"2": 112, "3": 80}[ask.question.id] for ask in asks]
            sgl = [{"decision": "prune", "visual_tokens": n, "kept_tokens": 1} for n in tokens]
            return [Reply("never said", 150, 2, one) for one in sgl]

        def close(self):
            asked.append("closed")

    monkeypatch.setattr(answerer, "Engines", Fake)
    command.main(arguments)
    assert asked == []
    answers = out / "answers.jsonl"
    whole = answers.read_text()
    try:
        answers.write_text("".join(whole.splitlines(keepends=True)[:-2]))
        command.main(arguments)
        assert asked == [("2", "blind"), ("3", "blind"), "closed"]
        assert len(answers.read_text().splitlines()) == len(whole.splitlines())
    finally:
        answers.write_text(whole)
    with pytest.raises(SystemExit):
        command.main([*arguments, "--seed", "1"])


def test_packed_positions_start_an_engine_of_their_own(command_line, out, monkeypatch):
    """And what does not depend on positions is not asked again."""
    started = []

    class Fake:
        def __init__(self, large, small, wrap, arguments):
            started.append(arguments["sgl_positions"])

        def answer(self, asks):
            assert {ask.setting.positions for ask in asks} == {"packed"}
            raise InterruptedError

        def close(self):
            pass

    monkeypatch.setattr(answerer, "Engines", Fake)
    with pytest.raises(InterruptedError):
        command.main([*command_line[0], "--positions", "original", "packed"])
    assert started == ["packed"]


def test_fastv_ranks_by_the_last_prompt_token(outside):
    """Attention of one row in one layer: it sums to less than 1, and over layers to that row's mass."""
    question = outside.questions[1]
    seen = outside.rendered(question)
    first, second = (torch.cat(fastv.importance(outside.large, *seen, layer=layer)) for layer in (1, 2))
    assert 0 < first.sum() < 1
    assert not torch.allclose(first, second)
    assert [len(part) for part in fastv.importance(outside.large, *seen)] == [
        outside.tiling.tokens(outside.tiling.grid(*size)) for size in SIZES[1]
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--base-url", "http://127.0.0.1:9/v1", "--methods", "random"], "--methods random: not possible"),
        (["--base-url", "http://127.0.0.1:9/v1", "--positions", "packed"], "the server's own"),
        (["--retention", "0"], r"expected a number in \(0, 1\], received '0'"),
        (["--large-args", "[]"], r"expected a JSON object, received '\[\]'"),
        (["--max-tokens", "1.5"], "expected a whole number >= 1, received '1.5'"),
        (["--small", "no/such/folder"], "no/such/folder: its config.json cannot be read"),
    ],
)
def test_bad_arguments(command_line, tmp_path, capsys, change, words):
    with pytest.raises(SystemExit):
        command.main([*command_line[0], "--out", str(tmp_path), *change])
    assert re.search(words, " ".join(capsys.readouterr().err.split()))
