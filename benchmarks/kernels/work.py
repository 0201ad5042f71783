"""What a benchmarked operation is, and the registry of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Work:
    """One operation on one shape, ready to run.

    verify: raises AssertionError where kernel and naive disagree.
    moved: bytes that must be read and written at least once. flops: multiplications and additions done.
    stand_in: what runs beside the kernel in a model, to compare with; its name says what it is.
    """

    kernel: Callable[[], Any]
    naive: Callable[[], Any]
    verify: Callable[[], None]
    moved: int
    flops: int = 0
    stand_in: tuple[str, Callable[[], Any]] | None = None


@dataclass(frozen=True)
class Operation:
    """build: (device, **shape) -> Work. shapes: on a GPU, by name. small: the one that a CPU runs."""

    name: str
    build: Callable[..., Work]
    shapes: dict[str, dict[str, Any]]
    small: dict[str, Any]


OPERATIONS: dict[str, Operation] = {}


def operation(small: dict[str, Any], **shapes: dict[str, Any]) -> Callable:
    """Register a function (device, **shape) -> Work under its name."""

    def register(build: Callable[..., Work]) -> Callable[..., Work]:
        OPERATIONS[build.__name__] = Operation(build.__name__, build, shapes, small)
        return build

    return register
