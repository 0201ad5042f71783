"""Types of arguments that the subcommands share. Each refuses with what was expected and what came."""

import argparse
from collections.abc import Callable
from typing import Any

from vllm_sgl.serve import flags


def number(text: str, allowed: str, holds: Callable[[float], bool]) -> float:
    """A number for which ``holds``; ``allowed`` says so in words."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not holds(value):
        raise argparse.ArgumentTypeError(f"expected {allowed}, received {text!r}")
    return value


def share(text: str) -> float:
    """In (0, 1]."""
    return number(text, "a number in (0, 1]", lambda value: 0 < value <= 1)


def threshold(text: str) -> float:
    """In [0, 1]."""
    return number(text, "a number in [0, 1]", lambda value: 0 <= value <= 1)


def percentage(text: str) -> float:
    """``1%`` or ``0.01``: a share above 0 and below 1."""
    bare = text.strip().removesuffix("%")
    scale = 100 if bare != text.strip() else 1
    try:
        value = float(bare) / scale
    except ValueError:
        value = float("nan")
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(
            f"expected a share between 0 and 1, such as 0.01 or 1%, received {text!r}"
        )
    return value


def count(text: str) -> int:
    """A whole number from 1 on."""
    return int(number(text, "a whole number >= 1", lambda value: value >= 1 and value.is_integer()))


def json_object(text: str) -> dict[str, Any]:
    """An object in JSON."""
    return flags.json_object(text, "a JSON object")
