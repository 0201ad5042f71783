"""What is wrong with a block of code, by the language that its fence names."""

import ast
import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from tools.docs_check.pages import Piece
from tools.docs_check.programs import starts_a_command, wrong_command
from tools.docs_check.shell import commands

#: A finding: the line, and what is wrong.
Finding = tuple[int, str]


def check_block(piece: Piece, files: Mapping[str, str]) -> Iterator[Finding]:
    """Findings of a fenced or an indented block. files: that its page tells the reader to write."""
    if piece.kind == "indented" and not starts_a_command(piece.text.split("\n", 1)[0]):
        return  # a formula, a diagram
    check = _BY_KIND.get(piece.kind)
    if check is None:
        known = ", ".join(kind or "nothing for a shell's" for kind in _BY_KIND)
        yield piece.line - 1, f"a block of {piece.kind}: expected one of {known}"
        return
    try:
        yield from check(piece, files)
    except (ValueError, SyntaxError, yaml.YAMLError) as error:
        yield piece.line, " ".join(str(error).split())


def _shell(piece: Piece, files: Mapping[str, str]) -> Iterator[Finding]:
    for command in commands(piece.text, piece.line):
        if wrong := wrong_command(command.words, files):
            yield command.line, f"{' '.join(command.words[:3])}: {wrong}"


def _json(piece: Piece, files: Mapping[str, str]) -> Iterator[Finding]:
    try:
        json.loads(piece.text)
    except ValueError:  # or JSON Lines
        for number, line in enumerate(piece.text.splitlines(), piece.line):
            try:
                json.loads(line)
            except ValueError as error:
                yield number, str(error)


def _python(piece: Piece, files: Mapping[str, str]) -> Iterator[Finding]:
    for node in ast.walk(ast.parse(piece.text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            for name in node.names:
                if not hasattr(module, name.name):
                    yield piece.line + node.lineno - 1, f"{node.module} has no {name.name}"


def _yaml(piece: Piece, files: Mapping[str, str]) -> Iterator[Finding]:
    for document in yaml.safe_load_all(piece.text):
        for arguments in _argument_lists(document):
            if wrong := wrong_command(["vllm", "serve", "MODEL", *arguments], files):
                yield piece.line, wrong


def _argument_lists(value: Any) -> Iterator[list[str]]:
    """Lists of strings, below any key, that have a flag of ours."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        if any(isinstance(part, str) and part.startswith("--sgl-") for part in value):
            yield [str(part) for part in value]
        for part in value:
            yield from _argument_lists(part)


def _dockerfile(piece: Piece, files: Mapping[str, str]) -> Iterator[Finding]:
    instructions = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "RUN", "USER"}
    for command in commands(piece.text, piece.line):
        if command.words[0] not in instructions:
            yield command.line, f"{command.words[0]}: expected one of {', '.join(sorted(instructions))}"
        elif command.words[0] == "RUN" and (wrong := wrong_command(command.words[1:], files)):
            yield command.line, wrong


def _output(piece: Piece, files: Mapping[str, str]) -> Iterator[Finding]:
    return iter(())


_BY_KIND: dict[str, Callable[[Piece, Mapping[str, str]], Iterator[Finding]]] = {
    "": _shell,
    "indented": _shell,
    "json": _json,
    "python": _python,
    "yaml": _yaml,
    "dockerfile": _dockerfile,
    "text": _output,
}
