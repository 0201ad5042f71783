"""Shell text into commands: continued lines, comments, prompts, pipes."""

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

PROMPT = "$ "
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_PUNCTUATION = re.compile(r"[();<>|&]+")


class Command(NamedTuple):
    """words: without the environment before them, and without what is redirected where."""

    line: int
    words: list[str]


def commands(text: str, line: int) -> Iterator[Command]:
    """The commands of a block whose first line is `line`. Where a line of it has a prompt, the others are
    output.

    Raises:
        ValueError: a quotation mark without its fellow.
    """
    prompted = any(part.startswith(PROMPT) for part in text.splitlines())
    gathered, began = "", 0
    for number, part in enumerate(text.splitlines(), line):
        if not gathered:
            if prompted and not part.startswith(PROMPT):
                continue
            began = number
        gathered += part.removeprefix(PROMPT) if prompted and not gathered else part
        if gathered.endswith("\\"):
            gathered = gathered[:-1] + " "
            continue
        try:
            words = _words(gathered)
        except ValueError:  # a quotation that goes on in the next line
            gathered += "\n"
            continue
        gathered = ""
        yield from (Command(began, found) for found in _split(words))
    if gathered:
        raise ValueError(f"line {began} has a quotation mark or a backslash that nothing follows")


def _words(text: str) -> list[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def _split(words: list[str]) -> Iterator[list[str]]:
    command: list[str] = []
    skip = False
    for word in [*words, ";"]:
        if _PUNCTUATION.fullmatch(word):
            if word.startswith((">", "<")):
                skip = True
                continue
            if command:
                yield command
            command = []
        elif skip:  # the file of a redirection
            skip = False
        elif command or not _ASSIGNMENT.match(word):
            command.append(word)
