"""What import contracts cannot say: which of vLLM's modules are internal, what an import costs where, and how
long a file may be. Who may import whom is in pyproject.toml, under tool.importlinter. `make lint` runs both.

    python tools/check_imports.py [ROOT]

Reads the source without importing it. Prints one `file:line: rule: import: what to do` per finding
and exits with status 1 if there is any.
"""

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

TREES = ("vllm_sgl", "tests", "tools", "benchmarks", "examples")
MAX_LINES = 300
SOURCE = {".py", ".pyi", ".sh", ".cu", ".cuh", ".cpp", ".h"}

# What vLLM offers to others. Any other vllm.* module is internal, free to change in every release.
PUBLIC = {
    "vllm.config",
    "vllm.exceptions",
    "vllm.inputs",
    "vllm.logger",
    "vllm.lora.request",
    "vllm.outputs",
    "vllm.sampling_params",
}
# When an import runs: as the module loads, when a function is called, or never.
TOP, LAZY, TYPES = "top", "lazy", "types"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True)
class Import:
    """`from module import name`, or `import module` with an empty name; one per name."""

    line: int
    module: str
    name: str
    when: str

    @property
    def target(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module

    def within(self, *packages: str) -> bool:
        return any(f"{self.target}.".startswith(f"{package}.") for package in packages)


def is_internal(found: Import) -> bool:
    if found.module in PUBLIC or found.target in PUBLIC or not found.within("vllm"):
        return False
    if found.module == "vllm":  # a lower-case name is a submodule: its public names are classes
        return found.name.islower() and not found.name.startswith("__")
    return True


def inside(*packages: str) -> Callable[[Import], bool]:
    return lambda found: found.within(*packages)


@dataclass(frozen=True)
class Rule:
    name: str
    where: tuple[str, ...]  # files, or folders with a slash at the end
    forbids: Callable[[Import], bool]
    hint: str
    when: tuple[str, ...] = (TOP, LAZY, TYPES)
    but_not: tuple[str, ...] = ()


def _light(*names: str) -> tuple[str, ...]:
    return tuple(f"vllm_sgl/{name}.py" for name in names)


RULES = (
    Rule(
        "internals",
        where=("vllm_sgl/", "benchmarks/", "examples/"),
        but_not=("vllm_sgl/host/", "vllm_sgl/families/", "vllm_sgl/model/", "vllm_sgl/pair/"),
        forbids=is_internal,
        hint="only vllm_sgl/host/, families/, model/ and pair/ reach into vLLM; wrap it there",
    ),
    Rule(
        "light",
        where=_light(
            "__init__",
            "plugin",
            "allowed",
            "config",
            "core",
            "errors",
            "request/options",
            "pipeline",
            "sizes",
            "decide/costs",
            "decide/bypass",
            "decide/early_exit",
            "decide/scores/base",
            "decide/scores/registry",
            "families/__init__",
            "guide/base",
            "guide/checks",
            "prune/auto",
            "prune/base",
            "prune/registry",
        ),
        forbids=inside("torch", "vllm"),
        when=(TOP,),
        hint="loads in every process, so import it inside the function that needs it",
    ),
)


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(tree: ast.Module, path: str) -> Iterator[Import]:
    package = path.removesuffix(".py").removesuffix("/__init__").split("/")
    if not path.endswith("/__init__.py"):
        package.pop()

    def visit(node: ast.AST, when: str) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name, "", when) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            yield from (Import(node.lineno, module, alias.name, when) for alias in node.names)
        elif isinstance(node, ast.Call):
            match [ast.unparse(node.func).split(".")[-1], *node.args]:
                case ["import_module" | "__import__", ast.Constant(str(module)), *_]:
                    yield Import(node.lineno, module, "", when)
        elif isinstance(node, FUNCTIONS) and when == TOP:
            when = LAZY
        types = node.body if isinstance(node, ast.If) and is_type_checking(node.test) else []
        for child in ast.iter_child_nodes(node):
            yield from visit(child, TYPES if child in types else when)

    return visit(tree, TOP)


def check_file(path: str, text: str) -> Iterator[str]:
    lines = len(text.splitlines())
    if lines > MAX_LINES:
        yield f"{path}:{MAX_LINES + 1}: length: {lines} lines, {MAX_LINES} at most; split the file"
    rules = [r for r in RULES if path.startswith(r.where) and not path.startswith(r.but_not)]
    if not path.endswith(".py") or not rules:
        return
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield f"{path}:{error.lineno}: syntax: {error.msg}"
        return
    for found in imports(tree, path):
        for rule in rules:
            if found.when in rule.when and rule.forbids(found):
                yield f"{path}:{found.line}: {rule.name}: {found.target}: {rule.hint}"


def check(root: Path) -> list[str]:
    findings = []
    for tree in TREES:
        for file in sorted((root / tree).rglob("*")):
            if file.suffix in SOURCE and file.is_file():
                path = file.relative_to(root).as_posix()
                findings += check_file(path, file.read_text(encoding="utf-8"))
    return findings


def main() -> int:
    findings = check(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent)
    print("\n".join(findings) or "imports and file lengths: nothing to report")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
