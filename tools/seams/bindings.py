"""Which names a body of code binds, and to what. Nested functions and classes keep their own."""

import ast
from collections.abc import Iterator
from typing import NamedTuple

SCOPES = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda,
    ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp,
)  # fmt: skip


class Binding(NamedTuple):
    """how: what ``node`` says of the name.

    "define": its function or class. "import": what is imported, by an ``alias`` of ``statement``.
    "annotation", "value": an expression. "element": an expression that it is one element of.
    "first": the first parameter of a function, "parameter" any other.
    """

    how: str
    node: ast.AST
    statement: ast.AST | None = None


def collect(scope: ast.AST) -> dict[str, list[Binding]]:
    names: dict[str, list[Binding]] = {}
    for name, binding in _of_scope(scope):
        names.setdefault(name, []).append(binding)
    return names


def self_attributes(node: ast.ClassDef) -> Iterator[tuple[str, Binding, ast.AST]]:
    """(name, binding, method) for every attribute that a method sets on its first parameter."""
    for method in node.body:
        if not isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) or not method.args.args:
            continue
        first = method.args.args[0].arg
        for statement in ast.walk(method):
            for target, binding in _assigned(statement):
                match target:
                    case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name == first:
                        yield attribute, binding, method


def _of_scope(scope: ast.AST) -> Iterator[tuple[str, Binding]]:
    match scope:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
            yield from _parameters(scope.args)
            body = scope.body if isinstance(scope.body, list) else [scope.body]
            for node in body:
                yield from _in(node, deep=True)
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            for loop in scope.generators:
                yield from _named(loop.target, "element", loop.iter)
        case ast.Module() | ast.ClassDef():
            for node in scope.body:
                yield from _in(node, deep=False)


def _parameters(arguments: ast.arguments) -> Iterator[tuple[str, Binding]]:
    plain = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    for index, argument in enumerate(plain):
        yield argument.arg, Binding("parameter" if index else "first", argument)
    for star in filter(None, (arguments.vararg, arguments.kwarg)):
        yield star.arg, Binding("unknown", star)


def _in(node: ast.AST, deep: bool) -> Iterator[tuple[str, Binding]]:
    """What a statement binds. deep: also what its expressions bind (``:=``); few modules and classes do."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name, Binding("define", node)
            return
        case ast.Import():
            for alias in node.names:
                yield alias.asname or alias.name.split(".")[0], Binding("import", alias, node)
        case ast.ImportFrom():
            for alias in node.names:
                yield alias.asname or alias.name, Binding("import", alias, node)
    for target, binding in _assigned(node):
        yield from _named(target, binding.how, binding.node)
    if isinstance(node, SCOPES):
        return
    for child in ast.iter_child_nodes(node):
        if deep or isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from _in(child, deep)


def _assigned(node: ast.AST) -> Iterator[tuple[ast.expr, Binding]]:
    match node:
        case ast.Assign():
            for target in node.targets:
                yield target, Binding("value", node.value)
        case ast.AnnAssign():
            yield node.target, Binding("annotation", node.annotation)
            if node.value is not None:
                yield node.target, Binding("value", node.value)
        case ast.NamedExpr():
            yield node.target, Binding("value", node.value)
        case ast.For() | ast.AsyncFor():
            yield node.target, Binding("element", node.iter)
        case ast.withitem(optional_vars=ast.expr()):
            # Of a function with @contextmanager, whose annotation is Iterator[what it yields].
            yield node.optional_vars, Binding("element", node.context_expr)


def _named(target: ast.expr, how: str, node: ast.expr) -> Iterator[tuple[str, Binding]]:
    match target, node:
        case ast.Name(id=name), _:
            yield name, Binding(how, node)
        case ((ast.Tuple() | ast.List()), (ast.Tuple() | ast.List())) if how == "value":
            if len(target.elts) == len(node.elts):
                for part, value in zip(target.elts, node.elts, strict=True):
                    yield from _named(part, how, value)
        case ((ast.Tuple(elts=[only]) | ast.List(elts=[only])), _) if how == "value":
            yield from _named(only, "element", node)
        case ((ast.Tuple() | ast.List() | ast.Starred()), _):
            for part in ast.walk(target):
                if isinstance(part, ast.Name):
                    yield part.id, Binding("unknown", node)
