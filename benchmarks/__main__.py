"""What benchmarks there are: `python -m benchmarks`."""

from benchmarks import report
from benchmarks.index import INDEX


def main() -> None:
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
