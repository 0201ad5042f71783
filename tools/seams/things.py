"""What a name can stand for. Compared by identity: each world makes its own, once."""

import ast
from dataclasses import dataclass, field

from tools.seams.bindings import Binding, collect

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(eq=False)
class Scope:
    """A body of code and the names it binds. parent: where names are looked up that it does not bind."""

    module: "Module"
    node: ast.AST
    parent: "Scope | None"
    owner: "Class | None" = None  # of a class body, or of the method whose body this is
    names: dict[str, list[Binding]] = field(init=False)

    def __post_init__(self) -> None:
        self.names = collect(self.node)


@dataclass(eq=False)
class Module:
    """path: of its file, in its source."""

    name: str
    path: str
    tree: ast.Module
    scope: Scope = field(init=False)

    def __post_init__(self) -> None:
        self.scope = Scope(self, self.tree, None)

    @property
    def place(self) -> str:
        return self.name

    @property
    def is_package(self) -> bool:
        return self.path.endswith("/__init__.py")


@dataclass(eq=False)
class Class:
    node: ast.ClassDef
    scope: Scope  # its body
    place: str  # "vllm.config.vllm:VllmConfig"


@dataclass(eq=False)
class Function:
    """bound: its first parameter is filled already. via: the class that it was read off, if any."""

    node: FunctionNode
    scope: Scope  # where it is defined
    place: str
    owner: Class | None
    bound: bool = False
    via: Class | None = None


@dataclass(eq=False)
class Variable:
    """A module's or class's variable, a dataclass field, or an attribute that a method sets on ``self``."""

    sources: tuple[tuple[Binding, Scope], ...]
    place: str


@dataclass(eq=False)
class External:
    """A name that a module takes from a package outside this world, or makes in a way unknown to us."""

    place: str


@dataclass(eq=False)
class Instance:
    of: Class


@dataclass(eq=False)
class Super:
    """``super()`` inside a class."""

    of: Class


@dataclass(eq=False)
class Many:
    """Something to iterate over, or to index."""

    elements: "tuple[Thing, ...]"


Definition = Module | Class | Function | Variable | External
Thing = Definition | Instance | Super | Many


def decorators(node: FunctionNode | ast.ClassDef) -> set[str]:
    """Last parts of the decorators' names: {"dataclass"} for ``@dataclasses.dataclass(frozen=True)``."""
    names = (d.func if isinstance(d, ast.Call) else d for d in node.decorator_list)
    return {ast.unparse(name).split(".")[-1] for name in names}


def is_property(function: Function) -> bool:
    return not decorators(function.node).isdisjoint({"property", "cached_property", "abstractproperty"})
