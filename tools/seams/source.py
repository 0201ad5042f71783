"""The Python files of one package: in a folder, in a wheel, or installed."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

_VERSION = re.compile(r"^__version__\b.*= *['\"]([^'\"]+)['\"]", re.MULTILINE)


class SourceError(ValueError):
    """What was given holds no such package."""


@dataclass(frozen=True, eq=False)
class Source:
    """package: the top-level name. paths: its files, such as ``vllm/config/model.py``."""

    package: str
    paths: frozenset[str]
    read: Callable[[str], bytes]

    def file(self, module: str) -> str | None:
        """The path of a module's file."""
        path = module.replace(".", "/")
        return next((p for p in (f"{path}.py", f"{path}/__init__.py") if p in self.paths), None)

    @property
    def version(self) -> str:
        """As the package itself says in ``_version.py`` or ``version.py``."""
        for name in ("_version", "version"):
            path = f"{self.package}/{name}.py"
            if path in self.paths and (found := _VERSION.search(self.read(path).decode())):
                return found[1]
        return "of unknown version"

    def defining(self, name: str) -> list[str]:
        """Modules that define a class, function or variable of this name at their top level, by name."""
        wanted = re.compile(rb"^(?:class |def |async def )?%b(?:\(|:| *=[^=])" % name.encode(), re.MULTILINE)
        found = (path for path in self.paths if wanted.search(self.read(path)))
        return sorted(module_of(path) for path in found)


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def open_source(package: str, given: Path) -> Source:
    """A wheel, an unpacked one, a source checkout, or the package's own folder.

    Raises:
        SourceError: where nothing is there, or not the package.
    """
    if not given.exists():
        raise SourceError(f"{given}: expected a wheel or a folder with {package}/ in it, found no such file")
    if given.is_dir():
        return _folder(package, given.parent if _is_package(package, given) else given, given)
    try:
        wheel = ZipFile(given)
    except BadZipFile:
        raise SourceError(
            f"{given}: expected a wheel (.whl) or a folder, received a file that is no zip archive: unpack "
            "it and give the folder"
        ) from None
    return _source(package, wheel.namelist(), wheel.read, given)


def installed(package: str) -> Source:
    """The package that this Python would import; it is not imported.

    Raises:
        SourceError: where there is none.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(
            f"{package} is not installed in this Python: install it, or name a release with --old"
        )
    where = Path(next(iter(spec.submodule_search_locations)))
    return _folder(package, where.parent, where)


def _is_package(package: str, folder: Path) -> bool:
    return folder.resolve().name == package and (folder / "__init__.py").is_file()


def _folder(package: str, root: Path, given: Path) -> Source:
    files = (file.relative_to(root).as_posix() for file in (root / package).rglob("*.py"))
    return _source(package, files, lambda path: (root / path).read_bytes(), given)


def _source(package: str, names: Iterable[str], read: Callable[[str], bytes], given: Path) -> Source:
    paths = frozenset(n for n in names if n.endswith(".py") and PurePosixPath(n).parts[0] == package)
    if f"{package}/__init__.py" not in paths:
        raise SourceError(
            f"{given}: expected {package}/__init__.py in it, found none: give a wheel or sources of {package}"
        )
    return Source(package, paths, read)
