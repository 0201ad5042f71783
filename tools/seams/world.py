"""Several packages together: their modules, and what the names in them stand for."""

import ast
from functools import cache

from tools.seams.bindings import Binding
from tools.seams.source import Source, SourceError
from tools.seams.things import Class, Definition, External, Function, Module, Scope, Variable, decorators


@cache
def _parse(text: bytes, path: str) -> ast.Module:
    """Two releases share the trees of files that did not change."""
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise SourceError(
            f"{path}:{error.lineno}: {error.msg}: expected a file that this Python can read; use a newer one"
        ) from error


class World:
    """Files are parsed when asked for, and once.

    sources: the packages; whatever else a module imports is :class:`External`.
    """

    def __init__(self, *sources: Source) -> None:
        self._sources = {source.package: source for source in sources}
        self._modules: dict[str, Module | None] = {}
        self._definitions: dict[tuple[int, str], Definition | None] = {}
        self._scopes: dict[tuple[int, int], Scope] = {}

    def module(self, name: str) -> Module | None:
        if name not in self._modules:
            source = self._sources.get(name.split(".")[0])
            path = source and source.file(name)
            self._modules[name] = path and Module(name, path, _parse(source.read(path), path))
        return self._modules[name]

    def name(self, module: Module, name: str) -> Definition | None:
        """What a module's name stands for; None where it has no such name."""
        key = (id(module), name)
        if key not in self._definitions:
            self._definitions[key] = None  # two modules may import a name from each other
            self._definitions[key] = self._find(module, name)
        return self._definitions[key]

    def _find(self, module: Module, name: str) -> Definition | None:
        found = self.bound(module.scope, name)
        if found is not None:
            return found
        for node in module.tree.body:
            if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
                whole = self.module(imported_from(node, module))
                if whole and (found := self.name(whole, name)):
                    return found
        found = self.module(f"{module.name}.{name}") if module.is_package else None
        return found or self._lazily(module, name)

    def _lazily(self, module: Module, name: str) -> Definition | None:
        """A name that the module's ``__getattr__`` makes: from a table of where names are, or otherwise."""
        if "__getattr__" not in module.scope.names:
            return None
        for bindings in module.scope.names.values():
            for table in (b.node for b in bindings if isinstance(b.node, ast.Dict)):
                for key, value in zip(table.keys, table.values, strict=True):
                    match key, value:
                        case ast.Constant(value=str(known)), ast.Constant(value=str(where)) if known == name:
                            return self._imported(*_lazy_place(where, name, module))
        # `if name == "current_platform":`, or in __all__
        texts = (n.value for n in ast.walk(module.tree) if isinstance(n, ast.Constant))
        return External(f"{module.name}:{name}") if name in texts else None

    def bound(self, scope: Scope, name: str) -> Definition | None:
        """What a body of code, itself, binds a name to."""
        bindings = scope.names.get(name)
        if not bindings:
            return None
        functions = [
            b.node for b in bindings
            if isinstance(b.node, ast.FunctionDef | ast.AsyncFunctionDef)
            and decorators(b.node).isdisjoint({"overload", "setter", "deleter"})
        ]  # fmt: skip
        place = _place(scope, name)
        if functions:
            return Function(functions[-1], scope, place, _class_of(scope))
        for binding in bindings:
            if binding.how == "define" and isinstance(binding.node, ast.ClassDef):
                return self.class_of(binding.node, scope)
            if binding.how == "import" and (found := self._import(binding, scope.module)):
                return found
        if all(b.how == "import" for b in bindings):
            return None
        return Variable(tuple((b, scope) for b in bindings), place)

    def class_of(self, node: ast.ClassDef, scope: Scope) -> Class:
        return self.inner(node, scope).owner

    def inner(self, node: ast.AST, outer: Scope) -> Scope:
        """The scope of a function, class, lambda or comprehension."""
        key = (id(node), id(outer))
        if key not in self._scopes:
            # A method does not see the names of its class's body.
            parent = outer.parent if isinstance(outer.node, ast.ClassDef) else outer
            scope = self._scopes[key] = Scope(outer.module, node, parent, outer.owner)
            if isinstance(node, ast.ClassDef):
                scope.owner = Class(node, scope, _place(outer, node.name))
        return self._scopes[key]

    def _import(self, binding: Binding, module: Module) -> Definition | None:
        alias, statement = binding.node, binding.statement
        if isinstance(statement, ast.ImportFrom):
            return self._imported(imported_from(statement, module), alias.name)
        return self._imported(alias.name if alias.asname else alias.name.split(".")[0])

    def _imported(self, module: str, name: str = "") -> Definition | None:
        if module.split(".")[0] not in self._sources:
            return External(f"{module}:{name}" if name else module)
        found = self.module(module)
        return self.name(found, name) if found and name else found


def imported_from(node: ast.ImportFrom, module: Module) -> str:
    """The absolute name of the module in ``from .module import ...``."""
    if not node.level:
        return node.module or ""
    package = module.name.split(".")
    drop = node.level - 1 if module.is_package else node.level
    return ".".join([*package[: len(package) - drop], *filter(None, [node.module])])


def _lazy_place(where: str, name: str, module: Module) -> tuple[str, str]:
    """(module, name) of a table's entry: "pkg.module", ".module" or ".module:Name"."""
    target, _, attribute = where.partition(":")
    if target.startswith("."):
        relative = ast.ImportFrom(target.lstrip("."), [], len(target) - len(target.lstrip(".")))
        target = imported_from(relative, module)
    return target, attribute or name


def _class_of(scope: Scope) -> Class | None:
    return scope.owner if isinstance(scope.node, ast.ClassDef) else None


def _place(scope: Scope, name: str) -> str:
    owner = _class_of(scope)
    return f"{owner.place}.{name}" if owner else f"{scope.module.name}:{name}"
