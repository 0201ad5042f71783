"""Parameters of functions and constructors, and which calls they take."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from inspect import Parameter

from tools.seams.calls import Call
from tools.seams.infer import Types
from tools.seams.things import Class, Function, decorators

_BY_PLACE = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
#: Decorators and bases that make a constructor of a class's annotations ("config": vLLM's own).
_MAKE_FIELDS = {"dataclass", "config", "Struct", "NamedTuple", "BaseModel", "TypedDict"}
_FIELD_FUNCTIONS = {"field", "Field", "get_field"}


@dataclass(frozen=True)
class Signature:
    parameters: tuple[Parameter, ...]

    @property
    def names(self) -> list[str]:
        return [p.name for p in self.parameters if p.kind in (*_BY_PLACE, Parameter.KEYWORD_ONLY)]

    @property
    def places(self) -> list[str]:
        return [p.name for p in self.parameters if p.kind in _BY_PLACE]

    def has(self, kind: int) -> bool:
        return any(p.kind == kind for p in self.parameters)

    def required(self) -> list[str]:
        stars = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        return [p.name for p in self.parameters if p.default is Parameter.empty and p.kind not in stars]

    def refusals(self, call: Call, hint: str = "") -> Iterator[str]:
        """Why a call would fail; nothing where it would not. hint: added where it gives an unknown name."""
        if call.positional > len(self.places) and not self.has(Parameter.VAR_POSITIONAL):
            yield f"takes {len(self.places)} positional arguments, ours gives {call.positional}"
        by_place = self.places[: call.positional]
        by_name = {p.name for p in self.parameters if p.kind in _BY_NAME}
        for name in call.names:
            if name in by_place:
                yield f"gets {name!r} by position and by name from ours"
            elif name not in by_name and not self.has(Parameter.VAR_KEYWORD):
                yield f"takes no {name!r}, which ours gives{hint}"
        if not call.open:
            for name in self.required():
                if name not in by_place and name not in call.names:
                    yield f"needs {name!r}, which ours does not give"

    def misfits(self, ours: "Signature") -> Iterator[str]:
        """Why a method of ours cannot stand in for this one, both without ``self``."""
        for index, parameter in enumerate(self.parameters):
            name = parameter.name
            if name not in self.names:  # *args, **kwargs
                continue
            if name not in ours.names:
                if not ours.has(Parameter.VAR_KEYWORD):
                    yield f"gives {name!r}, which ours does not take"
            elif parameter.kind in _BY_PLACE and ours.places[index : index + 1] != [name]:
                yield f"has {name!r} in another place than ours"
        if not self.has(Parameter.VAR_KEYWORD):
            for name in ours.names:
                if name not in self.names:
                    yield f"does not give {name!r}, which ours takes"


def of_function(function: Function) -> Signature:
    """Without its first parameter where that is filled."""
    parameters = tuple(_parameters(function.node.args))
    return Signature(parameters[1:] if function.bound else parameters)


def of_class(types: Types, cls: Class) -> Signature | None:
    """Of its constructor; None where that is written nowhere in this world."""
    fields: dict[str, Parameter] = {}
    found: Signature | None = None
    for ancestor in reversed(types.members.ancestors(cls)):
        init = types.world.bound(ancestor.scope, "__init__")
        makes_fields = _makes_fields(types, ancestor)
        if makes_fields:
            fields |= {p.name: p for p in _fields(ancestor.node)}
        if isinstance(init, Function):
            found = of_function(replace(init, bound=True))
        elif makes_fields:
            found = Signature(tuple(sorted(fields.values(), key=lambda p: p.kind)))
    return found


def _parameters(arguments: ast.arguments) -> Iterator[Parameter]:
    plain = [*arguments.posonlyargs, *arguments.args]
    no_default = len(plain) - len(arguments.defaults)
    for index, argument in enumerate(plain):
        only = index < len(arguments.posonlyargs)
        kind = Parameter.POSITIONAL_ONLY if only else Parameter.POSITIONAL_OR_KEYWORD
        yield _parameter(argument.arg, kind, index >= no_default)
    if arguments.vararg:
        yield _parameter(arguments.vararg.arg, Parameter.VAR_POSITIONAL, False)
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _parameter(argument.arg, Parameter.KEYWORD_ONLY, default is not None)
    if arguments.kwarg:
        yield _parameter(arguments.kwarg.arg, Parameter.VAR_KEYWORD, False)


def _parameter(name: str, kind: int, has_default: bool) -> Parameter:
    return Parameter(name, kind, default=None if has_default else Parameter.empty)


def optional(name: str) -> Parameter:
    return _parameter(name, Parameter.KEYWORD_ONLY, True)


def _makes_fields(types: Types, cls: Class) -> bool:
    if not decorators(cls.node).isdisjoint(_MAKE_FIELDS):
        return True
    bases = (base for ancestor in types.members.ancestors(cls) for base in ancestor.node.bases)
    return any(ast.unparse(base).split(".")[-1] in _MAKE_FIELDS for base in bases)


def _fields(node: ast.ClassDef) -> Iterator[Parameter]:
    options = [
        *node.keywords,
        *(k for d in node.decorator_list if isinstance(d, ast.Call) for k in d.keywords),
    ]
    by_name = _is_true(options, "kw_only")
    for statement in node.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        kind = ast.unparse(statement.annotation).split("[")[0].split(".")[-1]
        if kind == "KW_ONLY":
            by_name = True
        elif kind != "ClassVar" and (found := _field(statement, by_name)):
            yield found


def _field(statement: ast.AnnAssign, by_name: bool) -> Parameter | None:
    has_default = statement.value is not None
    match statement.value:
        case ast.Call(func=function, args=arguments, keywords=options) if (
            ast.unparse(function).split(".")[-1] in _FIELD_FUNCTIONS
        ):
            if any(o.arg == "init" and ast.unparse(o.value) == "False" for o in options):
                return None
            by_name = by_name or _is_true(options, "kw_only")
            given = {o.arg for o in options}
            has_default = bool(arguments) or not given.isdisjoint({"default", "default_factory"})
    kind = Parameter.KEYWORD_ONLY if by_name else Parameter.POSITIONAL_OR_KEYWORD
    return _parameter(statement.target.id, kind, has_default)


def _is_true(options: Sequence[ast.keyword], name: str) -> bool:
    return any(o.arg == name and ast.unparse(o.value) == "True" for o in options)
