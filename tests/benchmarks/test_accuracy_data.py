"""Questions are read as documented; what is wrong is named with file and line."""

import json

import pytest
from PIL import Image

from vllm_sgl.evaluate import questions
from vllm_sgl.evaluate.errors import UsageError

GOOD = {"id": "a", "images": ["one.png"], "question": "What?", "answers": ["42"]}


@pytest.fixture
def write(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "one.png")

    def write(*lines):
        path = tmp_path / "questions.jsonl"
        path.write_text(
            "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        )
        return path

    return write


def test_a_full_line_and_a_short_one(write, tmp_path):
    full = {**GOOD, "kind": "code", "answer_boxes": [[0, 1, 2, 3, 4.5]], "more": "is ignored"}
    path = write(full, "", {"image": "one.png", "question": "Who?", "answers": ["me", "you"]})
    first, second = questions.load(path)
    assert first == questions.Question(
        "a", (tmp_path / "one.png",), "What?", ("42",), "code", ((0, 1, 2, 3, 4.5),)
    )
    assert second == questions.Question("3", (tmp_path / "one.png",), "Who?", ("me", "you"))
    assert questions.load(path, limit=1) == [first]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", r"questions.jsonl:2: expected a JSON object, received '\{'"),
        ([1], "expected a JSON object"),
        ({**GOOD, "images": []}, r"images: expected a list of paths, received \[\]"),
        ({**GOOD, "images": ["two.png"]}, "images: there is no file .*two.png; paths are relative"),
        ({**GOOD, "question": ""}, "question: expected a text, received ''"),
        ({**GOOD, "answers": "42"}, "answers: expected a list of accepted texts, received '42'"),
        ({**GOOD, "kind": 3}, "kind: expected a text, received 3"),
        ({**GOOD, "answer_boxes": [[1, 0, 0, 5, 5]]}, "answer_boxes: expected .* image below 1"),
        ({**GOOD, "answer_boxes": [[0, 5, 0, 5, 5]]}, "x0 < x1"),
    ],
)
def test_a_bad_line_is_named(write, line, words):
    with pytest.raises(UsageError, match=words):
        questions.load(write({**GOOD, "id": "first"}, line))


def test_files_without_questions_or_with_an_id_twice(write, tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        questions.load(tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match="no questions"):
        questions.load(write(""))
    with pytest.raises(UsageError, match="id 'a' occurs more than once"):
        questions.load(write(GOOD, GOOD))
