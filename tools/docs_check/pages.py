"""A page in pieces: its code, in blocks and inside of text, each with its line."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tools.check_links import PAGES, parse

#: History names what is gone.
_NOT_READ = {"CHANGELOG.md"}
_NAMED = re.compile(r"# ([\w.-]+\.\w+)\n")


class Piece(NamedTuple):
    """kind: the word behind a fence's backticks ("" for none), "indented", or "inline". line: the first of
    the text."""

    page: Path
    line: int
    kind: str
    text: str


def pages(root: Path) -> list[Path]:
    """Those whose code is checked."""
    found = {page for pattern in PAGES for page in root.glob(pattern)}
    return sorted(page for page in found if page.name not in _NOT_READ)


def pieces(page: Path) -> Iterator[Piece]:
    for block in parse(page):
        line = block.map[0] + 1 if block.map else 0
        if block.type == "fence":
            yield Piece(page, line + 1, block.info.strip(), block.content)
        elif block.type == "code_block":
            yield Piece(page, line, "indented", block.content)
        for part in block.children or ():
            if part.type in ("softbreak", "hardbreak"):
                line += 1
            elif part.type == "code_inline":
                yield Piece(page, line, "inline", part.content)


def files(page: Path) -> dict[str, str]:
    """Files that a page tells its reader to write: blocks whose first line is a comment with their name."""
    found = {}
    for piece in pieces(page):
        first, _, _ = piece.text.partition("\n")
        name = first.removeprefix("# ")
        if (
            piece.kind not in ("inline", "indented")
            and name != first
            and Path(name).suffix
            and " " not in name
        ):
            found[name] = piece.text
    return found
