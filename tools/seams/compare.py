"""What one release of vLLM has of what ours uses, and another has not."""

import ast
import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tools.seams.bindings import SCOPES
from tools.seams.infer import Types
from tools.seams.signature import Signature, of_class, of_function
from tools.seams.sites import Site, find_sites
from tools.seams.source import Source
from tools.seams.things import (
    Class,
    Definition,
    Function,
    FunctionNode,
    Module,
    Variable,
    decorators,
    is_property,
)
from tools.seams.world import World

#: Uses that fail where the seam is missing. Others may be of something that ours put there.
_MUST_BE_THERE = ("import", "patch", "declared")
_FEW = 3


@dataclass(frozen=True, order=True)
class Finding:
    """kind: "missing" or "changed"."""

    file: str
    line: int
    kind: str
    seam: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}: {self.seam}: {self.text}"


@dataclass(frozen=True)
class Comparison:
    """seams: what ours uses of the old release, by file of ours."""

    findings: list[Finding]
    seams: dict[str, set[str]]


@contextmanager
def _no_collection() -> Iterator[None]:
    """Syntax trees are many objects, and stay: looking for garbage among them would take most of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_no_collection()
def compare(ours: Source, old: Source, new: Source) -> Comparison:
    """Look up every use in both releases.

    Problems with the new release are reported whether or not the old one has them too; that something has
    another shape, or is gone, only where the old one had it.
    """
    then, now = Types(World(ours, old)), Types(World(ours, new))
    before, after = find_sites(then, ours), find_sites(now, ours)
    findings: dict[tuple[str, str, str], Finding] = {}
    for key in before.keys() | after.keys():
        for finding in _Comparer(then, now, new).check(before.get(key), after.get(key)):
            same = (finding.file, finding.seam, finding.text)
            findings[same] = min(finding, findings.get(same, finding))
    seams: dict[str, set[str]] = {}
    for site in before.values():
        if site.found is not None:
            seams.setdefault(site.file, set()).add(site.seam)
    return Comparison(sorted(findings.values()), seams)


class _Comparer:
    def __init__(self, then: Types, now: Types, new: Source) -> None:
        self._then, self._now, self._new = then, now, new

    def check(self, before: Site | None, after: Site | None) -> Iterator[Finding]:
        site = after or before
        old = before and before.found
        new = after.found if after else self._again(before)
        if new is not None:
            for text in self._problems(site, old, new):
                yield Finding(site.file, site.line, "changed", site.seam, text)
        elif site.kind in _MUST_BE_THERE or (old is not None and site.kind != "call"):  # a name is called
            seam, text = self._missing(before or site)
            yield Finding(site.file, site.line, "missing", seam, text)

    def _again(self, before: Site) -> Definition | None:
        """A seam whose owner cannot be followed any more, where the old release has it."""
        if before.kind == "override":
            return None
        found = self._now.at(before.seam)
        if isinstance(found, Function) and isinstance(before.found, Function):
            return replace(found, bound=before.found.bound)
        return found

    def _missing(self, site: Site) -> tuple[str, str]:
        """What of a seam is missing, and where it might be now."""
        module, _, path = site.seam.partition(":")
        if site.base and not self._now.at(site.base):
            module, _, path = site.base.partition(":")
        head, _, attribute = path.partition(".")
        if attribute and self._now.at(f"{module}:{head}"):
            still_there = self._now.at(site.seam)
            return site.seam, "ours does not override it any more" if still_there else "not in its class"
        modules = self._new.defining(head) if head else []
        where = f"now in {', '.join(modules)}" if modules else "nowhere in this release"
        return f"{module}:{head}" if head else module, where

    def _problems(self, site: Site, old: Definition | None, new: Definition) -> Iterator[str]:
        was, is_now = _shape(self._then, old), _shape(self._now, new)
        if was and is_now and was != is_now:
            yield f"was {was}, is now {is_now}"
            return
        before, after = _signature(self._then, old, site.kind), _signature(self._now, new, site.kind)
        if after is None:
            return
        match site.kind:
            case "call":
                yield from after.refusals(site.call, _new_names(before, after))
                yield from _moved(range(site.call.positional), before, after)
            case "override" if old is None:
                yield "is new, and ours has that name too"
            case "override" if site.ours is not None:
                known = set(before.misfits(site.ours)) if before else ()
                yield from (misfit for misfit in after.misfits(site.ours) if misfit not in known)
            case "patch":
                found = tuple(after.places[: len(site.wanted)])
                if found != site.wanted:
                    yield f"takes {', '.join(found)}; ours expects {', '.join(site.wanted)} first"
            case "declared":
                yield from _declared(site.wanted, before, after)


def _shape(types: Types, definition: Definition | None) -> str | None:
    """What kind of thing it is; None where that is unknown."""
    if isinstance(definition, Variable):
        behind = next((t for t in types.of(definition) if isinstance(t, Class | Function)), None)
        return _shape(types, behind) if behind else "a value"
    match definition:
        case Module():
            return "a module"
        case Class():
            return "a class"
        case Function() if is_property(definition):
            return "a value"
        case Function():
            waits = "an async " if isinstance(definition.node, ast.AsyncFunctionDef) else "a "
            return waits + ("generator" if _yields(definition.node) else "function")
    return None


def _yields(function: FunctionNode) -> bool:
    def inside(node: ast.AST) -> bool:
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        return not isinstance(node, SCOPES) and any(map(inside, ast.iter_child_nodes(node)))

    return any(map(inside, function.body))


def _signature(types: Types, definition: Definition | None, kind: str) -> Signature | None:
    """As the use sees it: a replaced function has its first parameter still, a method has not."""
    match definition:
        case Class():
            return of_class(types, definition)
        case Function() if is_property(definition):
            return None
        case Function(owner=Class()) if kind in ("override", "declared"):
            return of_function(replace(definition, bound="staticmethod" not in decorators(definition.node)))
        case Function():
            return of_function(definition)
    return None


def _new_names(before: Signature | None, after: Signature) -> str:
    """A hint at the new name of what is gone, where few are new."""
    new = [repr(name) for name in after.names if name not in before.names] if before else []
    return f" (new here: {', '.join(new)})" if 0 < len(new) <= _FEW else ""


def _moved(places: Iterable[int], before: Signature | None, after: Signature) -> Iterator[str]:
    for index in places:
        names = [s.places[index] for s in (before, after) if s and index < len(s.places)]
        if len(names) == 2 and names[0] != names[1]:
            yield f"argument {index + 1} was {names[0]!r}, is now {names[1]!r}"


def _declared(wanted: Sequence[str], before: Signature | None, after: Signature) -> Iterator[str]:
    """With names wanted: has it these, in this order? Without: everything that may break a caller."""
    for name in wanted or (before.names if before else ()):
        if name not in after.names:
            yield f"takes no {name!r}" + _new_names(before, after)
    there = [name for name in after.names if name in wanted]
    if wanted and sorted(there) == sorted(wanted) and there != list(wanted):
        yield f"takes {', '.join(there)} in another order than {', '.join(wanted)}"
    if not wanted and before:
        for name in after.required():
            if name not in before.required():
                yield f"needs {name!r}"
        yield from _moved(range(len(before.places)), before, after)
