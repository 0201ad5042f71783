"""Attributes of classes: their own, inherited ones, and those that their methods set on ``self``."""

import ast
from collections.abc import Callable

from tools.seams.bindings import Binding, self_attributes
from tools.seams.things import Class, Definition, Scope, Thing, Variable
from tools.seams.world import World


class Members:
    """infer: what an expression, such as a base class, stands for."""

    def __init__(self, world: World, infer: Callable[[ast.expr, Scope], tuple[Thing, ...]]) -> None:
        self._world = world
        self._infer = infer
        self._ancestors: dict[int, tuple[Class, ...]] = {}
        self._on_self: dict[int, dict[str, list[tuple[Binding, Scope]]]] = {}

    def find(self, cls: Class, name: str, after: int = 0) -> Definition | None:
        """An attribute of a class or of its instances.

        after: how many of its ancestors to skip, itself included (``super()``: 1).
        """
        for ancestor in self.ancestors(cls)[after:]:
            if found := self._world.bound(ancestor.scope, name):
                return found
            if sources := self._set_on_self(ancestor).get(name):
                return Variable(tuple(sources), f"{ancestor.place}.{name}")
        return None

    def ancestors(self, cls: Class) -> tuple[Class, ...]:
        """The class and its known bases: depth first, a common base last, as Python orders most families."""
        if id(cls) not in self._ancestors:
            self._ancestors[id(cls)] = (cls,)  # of a class that is, by a mistake, its own base
            order = [cls]
            for expression in cls.node.bases:
                plain = expression.value if isinstance(expression, ast.Subscript) else expression
                for base in self._infer(plain, cls.scope.parent):
                    if isinstance(base, Class):
                        order += self.ancestors(base)
            self._ancestors[id(cls)] = tuple(c for i, c in enumerate(order) if c not in order[i + 1 :])
        return self._ancestors[id(cls)]

    def _set_on_self(self, cls: Class) -> dict[str, list[tuple[Binding, Scope]]]:
        if id(cls) not in self._on_self:
            found = self._on_self[id(cls)] = {}
            for name, binding, method in self_attributes(cls.node):
                found.setdefault(name, []).append((binding, self._world.inner(method, cls.scope)))
        return self._on_self[id(cls)]
