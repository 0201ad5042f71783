"""Every place in our files that touches vLLM.

What cannot be followed, because an object is annotated as ``Any`` or reached by a string, a file declares:

    SEAMS = (
        "vllm.v1.worker.gpu_model_runner:GPUModelRunner.input_batch.req_ids",
        "vllm.v1.attention.backend:AttentionImpl.forward(layer, query, key)",  # has these, in this order
    )
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tools.seams.bindings import SCOPES
from tools.seams.calls import Call, asked_of_keywords, of_call
from tools.seams.infer import Types
from tools.seams.signature import Signature, of_function, optional
from tools.seams.source import Source, SourceError, module_of
from tools.seams.things import Class, Definition, Function, Instance, Module, Scope, Super, Thing, decorators
from tools.seams.world import imported_from

HOST = "vllm"
#: Our function that replaces an attribute by name: (owner, name, parameters it must start with, ...).
PATCH = "vllm_sgl.host.patch:wrap"
DECLARED = "SEAMS"

_DECLARATION = re.compile(r"vllm[\w.]*:[\w.]+(?:\([\w, ]*\))?")
_ENVIRONMENT = re.compile(r"VLLM_[A-Z0-9_]+")


@dataclass(frozen=True)
class Site:
    """One use of one seam.

    kind: "import", "attribute", "call", "override", "patch" or "declared".
    seam: where vLLM defines it; where it is looked for, as far as known, when it is not found.
    call: what ours gives. wanted: names that must be there.
    ours: the parameters of the method of ours. base: the class of vLLM whose method that replaces.
    """

    file: str
    line: int
    kind: str
    seam: str
    found: Definition | None
    call: Call | None = None
    ours: Signature | None = None
    base: str = ""
    wanted: tuple[str, ...] = ()


#: The same for the same use of the same seam, whichever release it is looked up in.
Key = tuple[str, int, int, str, str]


def find_sites(types: Types, ours: Source) -> dict[Key, Site]:
    """All sites of a package of ours, by place in the source."""
    sites: dict[Key, Site] = {}
    for path in sorted(ours.paths):
        module = types.world.module(module_of(path))
        for node, name, site in _Finder(types, module).sites():
            sites.setdefault((path, node.lineno, node.col_offset, site.kind, name), site)
    return sites


Found = Iterator[tuple[ast.AST, str, Site]]


class _Finder:
    def __init__(self, types: Types, module: Module) -> None:
        self._types = types
        self._world = types.world
        self._module = module

    def sites(self) -> Found:
        yield from self._declared()
        yield from self._visit(self._module.tree, self._module.scope)

    def _site(self, node: ast.AST, kind: str, seam: str, found: Definition | None, **more: Any) -> Site:
        return Site(self._module.path, node.lineno, kind, seam, found, **more)

    def _visit(self, node: ast.AST, scope: Scope) -> Found:
        match node:
            case ast.Import() | ast.ImportFrom():
                yield from self._imports(node)
            case ast.Attribute():
                yield from self._attribute(node, self._types.infer(node.value, scope), node.attr)
            case ast.Call():
                yield from self._call(node, scope)
            case ast.ClassDef():
                yield from self._overrides(self._world.class_of(node, scope))
            case ast.Constant(value=str(text)) if _ENVIRONMENT.fullmatch(text):
                place = f"{HOST}.envs:{text}"
                yield node, text, self._site(node, "attribute", place, self._types.at(place))
        inner = self._world.inner(node, scope) if isinstance(node, SCOPES) else scope
        outside = _outside(node) if inner is not scope else ()
        for child in ast.iter_child_nodes(node):
            yield from self._visit(child, scope if child in outside else inner)

    def _imports(self, node: ast.Import | ast.ImportFrom) -> Found:
        for alias in node.names:
            if isinstance(node, ast.Import):
                place = alias.name
            else:
                place = f"{imported_from(node, self._module)}:{alias.name}"
            if is_host(place):
                yield node, alias.name, self._site(node, "import", place, self._types.at(place))

    def _attribute(self, node: ast.AST, owners: tuple[Thing, ...], name: str) -> Found:
        for owner in sorted(owners, key=lambda o: self._types.member(o, name) is None):
            found = self._types.member(owner, name)
            if isinstance(owner, Module) and is_host(owner.place):  # the name there, wherever it comes from
                yield node, name, self._site(node, "attribute", f"{owner.place}:{name}", found)
            elif found is not None and is_host(found.place):
                yield node, name, self._site(node, "attribute", found.place, found)
            elif found is None and (place := self._host_place(owner)):
                yield node, name, self._site(node, "attribute", f"{place}.{name}", None)
            return

    def _host_place(self, owner: Thing) -> str | None:
        """The class of vLLM that an owner of attributes is of, or inherits from."""
        match owner:
            case Class() | Instance() | Super():
                cls = owner if isinstance(owner, Class) else owner.of
                return next((a.place for a in self._types.members.ancestors(cls) if is_host(a.place)), None)
        return None

    def _call(self, node: ast.Call, scope: Scope) -> Found:
        match node:
            case ast.Call(
                func=ast.Name(id="getattr" | "hasattr" | "setattr"),
                args=[value, ast.Constant(value=str(name)), *_],
            ):
                yield from self._attribute(node, self._types.infer(value, scope), name)
                return
        for callee in self._types.infer(node.func, scope):
            if not isinstance(callee, Class | Function):
                continue
            if callee.place == PATCH:
                yield from self._patch(node, scope)
            elif is_host(callee.place):
                call = of_call(node, scope)
                yield node, ast.unparse(node.func), self._site(node, "call", callee.place, callee, call=call)
            return

    def _patch(self, node: ast.Call, scope: Scope) -> Found:
        match node.args:
            case [owner, ast.Constant(value=str(name)), ast.Tuple(elts=parameters), *_]:
                wanted = tuple(ast.literal_eval(parameter) for parameter in parameters)
                owners = self._types.infer(owner, scope)
                there = next((thing for thing in owners if isinstance(thing, Class | Module)), None)
                dot = ":" if isinstance(there, Module) else "."
                place = f"{there.place if there else ast.unparse(owner)}{dot}{name}"
                found = there and self._types.member(there, name)
                yield node, name, self._site(node, "patch", place, found, wanted=wanted)
            case _:
                raise SourceError(
                    f"{self._module.path}:{node.lineno}: expected a class, a name and a tuple of "
                    f"parameter names, both written out, received {ast.unparse(node)}"
                )

    def _overrides(self, cls: Class) -> Found:
        ancestors = self._types.members.ancestors(cls)
        theirs = next((a for a in ancestors if is_host(a.place)), None)
        if theirs is None or theirs is cls:
            return
        seen: set[str] = set()
        for mine in (a for a in ancestors if not is_host(a.place)):
            for name in mine.scope.names.keys() - seen:
                seen.add(name)
                base = self._types.members.find(theirs, name)
                own = self._world.bound(mine.scope, name)
                if base is None or not is_host(base.place):
                    continue
                node = mine.scope.names[name][0].node
                ours = _taken(own) if isinstance(own, Function) else None
                site = self._site(node, "override", base.place, base, ours=ours, base=theirs.place)
                yield node, f"{cls.place}.{name}", replace(site, file=mine.scope.module.path)

    def _declared(self) -> Found:
        values = (b.node for b in self._module.scope.names.get(DECLARED, ()) if b.how == "value")
        for value in values:
            for node, text in _texts(value, self._module.path):
                place, _, parameters = text.partition("(")
                wanted = tuple(filter(None, re.split(r"[, ]+", parameters.rstrip(")"))))
                yield node, text, self._site(node, "declared", place, self._types.at(place), wanted=wanted)


def _texts(node: ast.AST, path: str) -> Iterator[tuple[ast.expr, str]]:
    for part in node.elts if isinstance(node, ast.Tuple) else [node]:
        match part:
            case ast.Constant(value=str(text)) if _DECLARATION.fullmatch(text):
                yield part, text
            case _:
                raise SourceError(
                    f"{path}:{part.lineno}: {DECLARED}: expected a tuple of 'vllm.module:Class.attribute' or "
                    f"'vllm.module:function(parameter, parameter)', received {ast.unparse(part)}"
                )


def _taken(method: Function) -> Signature:
    """The parameters of a method of ours without ``self``, and what it reads off its ``**kwargs``."""
    bound = "staticmethod" not in decorators(method.node)
    signature = of_function(replace(method, bound=bound))
    asked = (name for name in asked_of_keywords(method.node) if name not in signature.names)
    return Signature((*signature.parameters, *map(optional, asked)))


def _outside(node: ast.AST) -> Sequence[ast.AST]:
    """Children of a function, class or lambda that run where it stands, not in its body."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return [*node.decorator_list, node.args, *filter(None, [node.returns])]
        case ast.ClassDef():
            return [*node.decorator_list, *node.bases, *node.keywords]
        case ast.Lambda():
            return [node.args]
    return []


def is_host(place: str) -> bool:
    return place.partition(":")[0].split(".")[0] == HOST
