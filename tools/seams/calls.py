"""What our calls give, and which of its keyword arguments a method of ours asks for."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from tools.seams.things import FunctionNode, Scope


@dataclass(frozen=True)
class Call:
    """open: it may also give what cannot be read here (``*args``, ``**kwargs``)."""

    positional: int
    names: tuple[str, ...]
    open: bool


def of_call(node: ast.Call, scope: Scope) -> Call:
    """Of a ``**name`` whose dict is written in the same function, the keys are known."""
    stars = [index for index, argument in enumerate(node.args) if isinstance(argument, ast.Starred)]
    names = [keyword.arg for keyword in node.keywords if keyword.arg is not None]
    doubles = [keyword.value for keyword in node.keywords if keyword.arg is None]
    for value in doubles:
        names += _keys(value, scope)
    return Call(min([*stars, len(node.args)]), tuple(names), bool(stars or doubles))


def _keys(node: ast.expr, scope: Scope | None) -> Iterator[str]:
    """Keys of a dict that are written out: in its braces, or assigned one by one to a variable of it."""
    if isinstance(node, ast.Dict):
        yield from _texts(node.keys)
    if not isinstance(node, ast.Name):
        return
    while scope is not None and node.id not in scope.names:
        scope = scope.parent
    if scope is None:
        return
    for binding in scope.names[node.id]:
        if isinstance(binding.node, ast.Dict):
            yield from _texts(binding.node.keys)
    for statement in ast.walk(scope.node):
        match statement:
            case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=name), slice=key)]) if name == node.id:
                yield from _texts([key])


def asked_of_keywords(node: FunctionNode) -> Iterator[str]:
    """What a function asks its ``**kwargs``: ``kwargs["x"]``, ``kwargs.get("x")``, ``"x" in kwargs``."""
    own = node.args.kwarg and node.args.kwarg.arg
    for part in ast.walk(node):
        match part:
            case ast.Subscript(value=ast.Name(id=name), slice=key) if name == own:
                yield from _texts([key])
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name), attr="get" | "pop" | "setdefault"), args=[key, *_]
            ) if name == own:
                yield from _texts([key])
            case ast.Compare(left=key, ops=[ast.In() | ast.NotIn()], comparators=[ast.Name(id=name)]) if (
                name == own
            ):
                yield from _texts([key])


def _texts(nodes: list[ast.expr | None]) -> Iterator[str]:
    for node in nodes:
        match node:
            case ast.Constant(value=str(text)):
                yield text
