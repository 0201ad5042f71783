"""Checking and replacing what is vLLM's, loudly: an error names the file of this project to adapt."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

_MARK = "__vllm_sgl_original__"


def check_signature(owner: Any, name: str, parameters: tuple[str, ...], fix: str) -> Any:
    """The attribute ``owner.name``, checked.

    Args:
        owner: a class or a module; or an object, whose methods are bound.
        parameters: the leading parameter names that it must have; none for what is not called.
        fix: the file of this project to adapt if it has others.

    Raises:
        RuntimeError: if the attribute is missing or takes other parameters.
    """
    static = isinstance(owner, type | ModuleType)
    found = inspect.getattr_static(owner, name, None) if static else getattr(owner, name, None)
    where = f"{_place(owner)}.{name}"
    if found is None:
        raise RuntimeError(f"{where} is missing in this vLLM; expected vLLM 0.32 or 0.33: adapt {fix}")
    if parameters:
        takes = tuple(inspect.signature(getattr(found, "__func__", found) if static else found).parameters)
        if takes[: len(parameters)] != parameters:
            raise RuntimeError(f"{where} takes {takes}, expected {parameters} first: adapt {fix}")
    return found


def _place(owner: Any) -> str:
    if isinstance(owner, ModuleType):
        return owner.__name__
    kind = owner if isinstance(owner, type) else type(owner)
    return f"{kind.__module__}.{kind.__qualname__}"


def wrap(owner: type | ModuleType, name: str, parameters: tuple[str, ...], fix: str, make: Callable) -> None:
    """Replace ``owner.name`` by ``make(original)``; once, however often it is called.

    Class and static methods stay what they are: ``make`` gets the plain function (a class method's
    takes ``cls`` first) and returns a plain function.

    Args:
        parameters: the leading parameter names that the original must have.
        fix: the file of this project to adapt if it has others.

    Raises:
        RuntimeError: if the attribute is missing or takes other parameters.
    """
    original = inspect.getattr_static(owner, name, None)
    if hasattr(getattr(original, "__func__", original), _MARK):
        return
    check_signature(owner, name, parameters, fix)
    function = getattr(original, "__func__", original)
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
