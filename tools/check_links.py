"""Links in the documentation: files, images, anchors, and repository paths in backticks. `make lint` runs it.

    python tools/check_links.py [ROOT]

Nothing is fetched: addresses with a scheme are left alone. Code blocks are not read. Prints one
`page:line: rule: target: what is wrong` per finding and exits with status 1 if there is any.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

PAGES = ("*.md", *(f"{tree}/**/*.md" for tree in ("docs", "models", "tools", "benchmarks", "examples")))
#: Where a path in backticks may begin, beside its page's own folder: `vllm_sgl/core.py`, `guide/base.py`.
BEGINNINGS = (".", "vllm_sgl")
SUFFIXES = {".json", ".jsonl", ".md", ".png", ".pth", ".py", ".safetensors", ".toml"}
_PATH = re.compile(r"[\w.*-]+(/[\w.*-]+)*/?")
_HTML_LINK = re.compile(r"\b(?:href|src)\s*=\s*[\"']?([^\"'\s>]*)", re.IGNORECASE)


def parse(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def anchors(tokens: list[Token]) -> set[str]:
    """The anchors that GitHub gives a page's headings; the second of two equal ones ends in `-1`."""
    seen: Counter[str] = Counter()
    found = set()
    for opening, heading in pairwise(tokens):
        if opening.type == "heading_open":
            text = "".join(c.content for c in heading.children or () if c.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return found


def targets(tokens: list[Token]) -> Iterator[tuple[int, str, str]]:
    """(line, rule, target) of everything on a page that points somewhere."""
    for block in tokens:
        line = block.map[0] + 1 if block.map else 0
        for part in (block, *(block.children or ())):
            if part.type in ("softbreak", "hardbreak"):
                line += 1
            elif part.type == "link_open":
                yield line, "link", str(part.attrs["href"])
            elif part.type == "image":
                yield line, "image", str(part.attrs["src"])
            elif part.type == "code_inline":
                yield line, "path", part.content.partition(":")[0]
            elif part.type in ("html_block", "html_inline"):
                yield from ((line, "html", target) for target in _HTML_LINK.findall(part.content))


def wrong_link(target: str, page: Path, root: Path) -> str | None:
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return None
    file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not file.is_relative_to(root):
        return "leads out of the repository; give its address, or a path inside"
    if not file.exists():
        return "no such file; correct the path, relative to this page"
    wanted, known = unquote(parts.fragment), anchors(parse(file)) if file.suffix == ".md" else set()
    if not wanted or wanted in known:
        return None
    close = get_close_matches(wanted, known, n=1)
    return "no such heading there" + (f"; the nearest is #{close[0]}" if close else "")


def wrong_path(target: str, page: Path, root: Path) -> str | None:
    first, slash, _ = target.partition("/")
    is_ours = target.endswith("/") or Path(target).suffix in SUFFIXES or (root / first).is_dir()
    is_path = (bool(slash) and is_ours) or target.endswith(".py")
    if not is_path or not _PATH.fullmatch(target) or f"{first}/" in _ignored(root):
        return None
    for folder in (page.parent, *(root / name for name in BEGINNINGS)):
        if any(found.is_dir() or not target.endswith("/") for found in folder.glob(target.rstrip("/"))):
            return None
    return f"no such file or folder here, in {' or in '.join(BEGINNINGS)}; correct it, or drop the backticks"


def wrong_html(target: str, page: Path, root: Path) -> str:
    return "HTML is not checked; write the link or the image in Markdown"


def _ignored(root: Path) -> set[str]:
    """What git does not keep: such a folder is there once something has written it."""
    return {line for file in root.glob(".gitignore") for line in file.read_text().splitlines()}


CHECKS = {"link": wrong_link, "image": wrong_link, "path": wrong_path, "html": wrong_html}


def check(root: Path) -> list[str]:
    root = root.resolve()
    findings = []
    for page in sorted({page for pattern in PAGES for page in root.glob(pattern)}):
        for line, rule, target in targets(parse(page)):
            if wrong := CHECKS[rule](target, page, root):
                findings.append(f"{page.relative_to(root)}:{line}: {rule}: {target}: {wrong}")
    return findings


def main() -> int:
    findings = check(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent)
    print("\n".join(findings) or "links of the documentation: nothing to report")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
