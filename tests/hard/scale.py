"""How hard: a few tries in CI, all of them by `make hard`."""

import os

#: `make hard` sets SGL_HARD=1.
FULL = os.environ.get("SGL_HARD") == "1"


def count(ci: int, full: int) -> int:
    """One of two numbers: for CI, which has ten minutes for all of tests/hard, or for `make hard`."""
    return full if FULL else ci


def say(text: str) -> None:
    """What a test did and found; `make hard` shows it."""
    print(f"\nhard: {text}", flush=True)
