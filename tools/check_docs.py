"""Commands, flags, keys and data in the documentation: all of it is what programs take. `make docs-check`.

    python -m tools.check_docs [ROOT]

Every command of a block is parsed by its program's own parser, and settings are checked as at a server's
start; nothing is started. A block's fence says what is in it: nothing for a shell, `json`, `yaml`, `python`,
`dockerfile`, or `text` for output. Flags, keys and metrics in backticks must exist, and those that exist must
be documented. Files that a page has its reader write (a block whose first line is a comment with a name)
are there for its commands. Prints one `page:line: what is wrong` per finding and exits with status 1 if there
is any.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from tools.docs_check.blocks import check_block
from tools.docs_check.names import undocumented, unknown
from tools.docs_check.pages import Piece, files, pages, pieces
from tools.docs_check.programs import modules_in, wrong_mention


def check(root: Path, complete: bool = True) -> list[str]:
    """The findings. complete: whether everything that exists must be documented."""
    root = root.resolve()
    everything = [piece for page in pages(root) for piece in pieces(page)]
    modules = modules_in(piece.text for piece in everything)
    findings = [
        f"{piece.page.relative_to(root)}:{line}: {wrong}"
        for piece in everything
        for line, wrong in _findings(piece, modules)
    ]
    if complete:
        documented = "\n".join(piece.text for piece in everything if piece.page.parent == root / "docs")
        findings += [f"docs/: {wrong}" for wrong in undocumented(documented)]
    return findings


def _findings(piece: Piece, modules: frozenset[str]) -> Iterator[tuple[int, str]]:
    if piece.kind != "text":
        yield from ((piece.line, wrong) for wrong in unknown(piece.text))
    if piece.kind != "inline":
        yield from check_block(piece, files(piece.page))
    elif wrong := wrong_mention(piece.text, modules):
        yield piece.line, f"{piece.text}: {wrong}"


def main() -> int:
    findings = check(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent)
    print("\n".join(findings) or "commands and names of the documentation: nothing to report")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
