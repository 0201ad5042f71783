"""What a release of vLLM changes for us: every name and signature that vllm_sgl/ uses, compared.

    python tools/check_seams.py WHEEL_OR_DIR [--old WHEEL_OR_DIR] [--list]

Beside those, every place of the new release that names an architecture of ours in quotes, and is not known.
Reads both releases without installing or importing them; the old one is the installed one. Prints one
`file:line: kind: seam: what is different` per finding, the file being ours to adapt, and exits with status 1
if there is any, with status 2 where it cannot compare. `make seams VERSION=0.33.0` fetches a release first.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a file, too

from tools.seams.compare import compare
from tools.seams.named import unknown
from tools.seams.sites import HOST
from tools.seams.source import SourceError, installed, open_source

ROOT = Path(__file__).resolve().parents[1]
#: The package of ours that is checked, all of its rooms.
OURS = "vllm_sgl"


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(
        prog="check_seams", description="Compare what vllm_sgl uses of vLLM with another release of it."
    )
    parser.add_argument("new", type=Path, metavar="WHEEL_OR_DIR", help="the release to look at")
    parser.add_argument("--old", type=Path, help="the release that works (default: the installed one)")
    parser.add_argument("--list", action="store_true", help="list every seam, too")
    given = parser.parse_args(arguments)
    try:
        old = open_source(HOST, given.old) if given.old else installed(HOST)
        new = open_source(HOST, given.new)
        result = compare(open_source(OURS, root), old, new)
    except SourceError as error:
        print(f"check_seams: {error}", file=sys.stderr)
        return 2
    if given.list:
        for file, seams in sorted(result.seams.items()):
            print(f"{file}:", *sorted(seams), sep="\n    ")
    findings = [*map(str, result.findings), *unknown(open_source(OURS, root), new)]
    print(*findings, sep="\n", end="\n" if findings else "")
    count = len(set().union(*result.seams.values()))
    about = f"{count} seams in {len(result.seams)} files of {OURS}/"
    said = f"{len(findings)} to look at" if findings else "nothing to change"
    print(f"vLLM {old.version} and {new.version}: {about}, {said}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
