"""Replacing one attribute of a vLLM class or module, loudly."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

_MARK = "__vllm_sgl_original__"


def wrap(owner: type | ModuleType, name: str, parameters: tuple[str, ...], fix: str, make: Callable) -> None:
    """Replace ``owner.name`` by ``make(original)``; once, however often it is called.

    Class and static methods stay what they are: ``make`` gets the plain function (a class method's
    takes ``cls`` first) and returns a plain function.

    Args:
        parameters: the leading parameter names that the original must have.
        fix: the file of this project to edit where it has not.

    Raises:
        RuntimeError: where the attribute is missing or takes other parameters.
    """
    place = owner.__name__ if isinstance(owner, ModuleType) else f"{owner.__module__}.{owner.__qualname__}"
    where = f"{place}.{name}"
    original = inspect.getattr_static(owner, name, None)
    if original is None:
        raise RuntimeError(f"{where} is missing in this vLLM; expected vLLM 0.32 or 0.33: adapt {fix}")
    function = getattr(original, "__func__", original)
    if hasattr(function, _MARK):
        return
    found = tuple(inspect.signature(function).parameters)
    if found[: len(parameters)] != parameters:
        raise RuntimeError(f"{where} takes {found}, expected {parameters} first: adapt {fix}")
    replacement: Any = make(function)
    setattr(replacement, _MARK, original)
    if isinstance(original, (classmethod, staticmethod)):
        replacement = type(original)(replacement)
    setattr(owner, name, replacement)


def unwrap(owner: type | ModuleType, name: str) -> None:
    """Put the original back, for tests; nothing happens where nothing was replaced."""
    current = inspect.getattr_static(owner, name)
    original = getattr(getattr(current, "__func__", current), _MARK, None)
    if original is not None:
        setattr(owner, name, original)
