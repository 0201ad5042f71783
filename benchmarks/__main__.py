"""What benchmarks there are: `python -m benchmarks`."""

import argparse
from collections.abc import Sequence

from benchmarks import report
from benchmarks.index import INDEX


def main(arguments: Sequence[str] | None = None) -> None:
    about = "Lists the benchmarks. Results are below benchmarks/results; --help of each has its settings."
    argparse.ArgumentParser(prog="python -m benchmarks", description=about).parse_args(arguments)
    report.print_table(
        {
            "command": f"python -m benchmarks.{one.name}",
            "question": one.question,
            "result": one.result or None,
        }
        for one in INDEX
    )


if __name__ == "__main__":
    main()
