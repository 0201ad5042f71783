"""What an expression is an instance of: from annotations, constructors and return types.

An answer is a tuple of alternatives, empty where nothing is known. ``X | None`` has one alternative.
"""

import ast
from dataclasses import replace
from functools import cache

from tools.seams.bindings import Binding
from tools.seams.members import Members
from tools.seams.things import (
    Class,
    Definition,
    Function,
    Instance,
    Many,
    Module,
    Scope,
    Super,
    Thing,
    Variable,
    decorators,
    is_property,
)
from tools.seams.world import World

_SEQUENCES = {
    "list", "List", "tuple", "Tuple", "set", "Set", "frozenset", "deque", "Sequence", "Collection",
    "Iterable", "Iterator", "Generator", "AsyncIterable", "AsyncIterator", "AsyncGenerator",
}  # fmt: skip
_MAPPINGS = {"dict", "Dict", "Mapping", "MutableMapping", "defaultdict", "OrderedDict"}
_WRAPPERS = {"Optional", "Union", "Annotated", "Final", "ClassVar", "Required", "NotRequired", "InitVar"}
#: Built-in functions whose result iterates over what their first argument iterates over.
_SAME_ELEMENTS = {"sorted", "list", "tuple", "set", "reversed", "iter"}

Things = tuple[Thing, ...]


class Types:
    """The types of a world's expressions."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.members = Members(world, self.infer)
        self._known: dict[tuple[int, int], Things] = {}

    def at(self, place: str) -> Definition | None:
        """What lies at ``package.module:Class.attribute``, inherited attributes included.

        A path goes on through what a variable holds or a function returns, and through what is inside that.
        """
        module, _, path = place.partition(":")
        found: Definition | None = self.world.module(module)
        for name in path.split(".") if path else ():
            if found is None:
                return None
            owners = self.returned(found) if isinstance(found, Function) else self.value(found)
            inside = (*owners, *elements(owners))
            found = next((d for owner in inside if (d := self.member(owner, name))), None)
        return found

    def infer(self, node: ast.expr, scope: Scope) -> Things:
        key = (id(node), id(scope))
        if key not in self._known:
            self._known[key] = ()  # of an expression that depends on itself
            self._known[key] = self._infer(node, scope)
        return self._known[key]

    def _infer(self, node: ast.expr, scope: Scope) -> Things:
        match node:
            case ast.Name():
                return self._name(node.id, scope)
            case ast.Attribute():
                return self._attribute(node.value, node.attr, scope)
            case ast.Call():
                return self._call(node, scope)
            case ast.Await() | ast.NamedExpr() | ast.Starred():
                return self.infer(node.value, scope)
            case ast.IfExp():
                return _either(self.infer(node.body, scope), self.infer(node.orelse, scope))
            case ast.BoolOp():
                return _either(*(self.infer(value, scope) for value in node.values))
            case ast.BinOp(op=ast.BitOr()):  # two dicts, or an alias of two types
                return _either(self.infer(node.left, scope), self.infer(node.right, scope))
            case ast.Subscript(slice=ast.Slice()):
                return self.infer(node.value, scope)
            case ast.Subscript():
                return elements(self.infer(node.value, scope))
            case ast.List() | ast.Tuple() | ast.Set():
                return (Many(_either(*(self.infer(part, scope) for part in node.elts))),)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
                return (Many(self.infer(node.elt, self.world.inner(node, scope))),)
        return ()

    def _name(self, name: str, scope: Scope | None) -> Things:
        while scope is not None:
            if name in scope.names:
                definition = self.world.bound(scope, name)
                return () if definition is None else self.value(definition)
            if scope.parent is None:
                found = self.world.name(scope.module, name)  # from a star import
                return () if found is None else self.value(found)
            scope = scope.parent
        return ()

    def _attribute(self, value: ast.expr, name: str, scope: Scope) -> Things:
        return self.attribute(self.infer(value, scope), name)

    def attribute(self, owners: Things, name: str) -> Things:
        return _either(*(self.value(d, owner) for owner in owners if (d := self.member(owner, name))))

    def member(self, owner: Thing, name: str) -> Definition | None:
        """The definition of an attribute; None where there is none, or none to be known."""
        match owner:
            case Module():
                return self.world.name(owner, name)
            case Class():
                return self.members.find(owner, name)
            case Instance():
                return self.members.find(owner.of, name)
            case Super():
                return self.members.find(owner.of, name, after=1)
        return None

    def value(self, definition: Definition, owner: Thing | None = None) -> Things:
        """What one gets who reads a definition off its owner."""
        match definition:
            case Variable():
                return self.of(definition)
            case Function() if isinstance(owner, Instance | Super):
                if is_property(definition):
                    return self.returned(replace(definition, via=owner.of))
                bound = "staticmethod" not in decorators(definition.node)
                return (replace(definition, bound=bound, via=owner.of),)
            case Function() if isinstance(owner, Class):
                bound = "classmethod" in decorators(definition.node)
                return (replace(definition, bound=bound, via=owner),)
        return (definition,)

    def of(self, variable: Variable) -> Things:
        """A variable's type: what is declared, else the first value that says something."""
        for binding, scope in sorted(variable.sources, key=lambda s: s[0].how != "annotation"):
            if found := self._bound(binding, scope):
                return found
        return ()

    def _bound(self, binding: Binding, scope: Scope) -> Things:
        match binding:
            case Binding("value", node):
                return self.infer(node, scope)
            case Binding("element", node):
                return elements(self.infer(node, scope))
            case Binding("annotation", node):
                return self.annotated(node, scope, scope.owner)
            case Binding("first", ast.arg(annotation=None)) if scope.owner and _is_method(scope):
                is_class = "classmethod" in decorators(scope.node)
                return (scope.owner if is_class else Instance(scope.owner),)
            case Binding("first" | "parameter", ast.arg(annotation=ast.expr() as node)):
                return self.annotated(node, scope, scope.owner)
        return ()

    def returned(self, function: Function) -> Things:
        if function.node.returns is None:
            return ()
        return self.annotated(function.node.returns, function.scope, function.via or function.owner)

    def annotated(self, node: ast.expr, scope: Scope, owner: Class | None) -> Things:
        """Instances of what an annotation names. owner: what ``Self`` is."""
        match node:
            case ast.Constant(value=str(text)):
                return self.annotated(_parsed(text), scope, owner)
            case ast.BinOp(op=ast.BitOr()):
                sides = (self.annotated(side, scope, owner) for side in (node.left, node.right))
                return _either(*sides)
            case ast.Subscript():
                return self._generic(node, scope, owner)
            case ast.Name(id="Self") | ast.Attribute(attr="Self") if owner:
                return (Instance(owner),)
            case ast.Name() | ast.Attribute():
                return tuple(Instance(thing) for thing in self.infer(node, scope) if isinstance(thing, Class))
        return ()

    def _generic(self, node: ast.Subscript, scope: Scope, owner: Class | None) -> Things:
        name = ast.unparse(node.value).split(".")[-1]
        arguments = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name in _SEQUENCES:
            return (Many(self.annotated(arguments[0], scope, owner)),)
        if name in _MAPPINGS:
            return (Many(self.annotated(arguments[-1], scope, owner)),)
        if name in ("type", "Type"):
            return _classes(self.annotated(arguments[0], scope, owner))
        if name in _WRAPPERS:
            wanted = arguments if name == "Union" else arguments[:1]
            return _either(*(self.annotated(argument, scope, owner) for argument in wanted))
        return self.annotated(node.value, scope, owner)

    def _call(self, node: ast.Call, scope: Scope) -> Things:
        match node:
            case ast.Call(func=ast.Name(id="super"), args=[]) if scope.owner:
                return (Super(scope.owner),)
            case ast.Call(func=ast.Name(id="getattr"), args=[value, ast.Constant(value=str(name)), *_]):
                return self._attribute(value, name, scope)
            case ast.Call(func=ast.Name(id=name), args=[first, *_]) if name in _SAME_ELEMENTS:
                return self.infer(first, scope)
            case ast.Call(func=ast.Name(id="TypeVar"), keywords=options):
                bounds = [option.value for option in options if option.arg == "bound"]
                return _classes(_either(*(self.annotated(bound, scope, None) for bound in bounds)))
            case ast.Call(func=ast.Name(id="next"), args=[first, *_]):
                return elements(self.infer(first, scope))
            case ast.Call(func=ast.Name(id="type"), args=[value]):
                return _classes(self.infer(value, scope))
        found = []
        for callee in self.infer(node.func, scope):
            if isinstance(callee, Class):
                found.append((Instance(callee),))
            elif isinstance(callee, Function):
                found.append(self.returned(callee))
        return _either(*found)


def elements(things: Things) -> Things:
    """What one gets by iterating over any of them."""
    return _either(*(thing.elements for thing in things if isinstance(thing, Many)))


def _classes(things: Things) -> Things:
    return tuple(thing.of for thing in things if isinstance(thing, Instance))


def _either(*alternatives: Things) -> Things:
    return tuple(thing for things in alternatives for thing in things)


def _is_method(scope: Scope) -> bool:
    return (
        isinstance(scope.node, ast.FunctionDef | ast.AsyncFunctionDef) and scope.node in scope.owner.node.body
    )


@cache  # and kept: what is known of a node is filed under its id
def _parsed(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        return ast.Constant(None)
