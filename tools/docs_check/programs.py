"""Is a command one that runs? Its program's own parser says so; nothing is started."""

import json
import os
import re
import tomllib
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from functools import cache
from io import StringIO
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.docs_check import parsers
from tools.docs_check.parsers import Refused

ROOT = Path(__file__).resolve().parents[2]
#: Programs of others, whose command lines are not looked into but for what is of ours in them.
OTHERS = {
    "cat", "cd", "curl", "docker", "echo", "export", "git", "head", "helm", "jq", "kill", "kubectl", "pip",
    "pytest", "tail",
}  # fmt: skip
#: An image that docs/deploying.md builds: what follows it on a command line is for `vllm serve`.
_IMAGE = re.compile(r"(.*/)?vllm-sgl(:.*)?")
_EXTRA = re.compile(r"vllm-sgl\[([\w,-]+)\]")
_FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*\*?")
_MODULE = re.compile(r"\bpython -m ([\w.]+)")
_PROGRAMS = {"vllm": parsers.VLLM, "vllm-sgl": "vllm_sgl"}


def starts_a_command(text: str) -> bool:
    return text.partition(" ")[0] in {*_PROGRAMS, *OTHERS, "make", "python"}


def wrong_command(words: list[str], files: Mapping[str, str]) -> str | None:
    """What is wrong with a whole command; None where nothing is.

    Args:
        files: that are there when it runs, by their names.
    """
    try:
        with _folder(files):
            _check(words)
    except (Refused, OSError, ValueError) as error:
        return str(error)
    return None


def wrong_mention(text: str, modules: frozenset[str]) -> str | None:
    """What is wrong with code inside of a sentence, which may be a command in part: `vllm serve --help=SGL`.
    Only its subcommand and its flags are looked at.

    Args:
        modules: what the documentation runs with `python -m`; a flag alone may be any of theirs.
    """
    words = text.split()
    try:
        if words and words[0] == "make":
            return _wrong_make(words[1:2])
        if words and words[0] in OTHERS:
            return None
        parser = _parser(words) if len(words) > 1 and starts_a_command(text) else None
    except Refused as error:
        return str(error)
    known = _every_flag(modules) if parser is None else parsers.options(parser)
    for flag in _FLAG.findall(text):
        pattern = re.compile(flag.replace("*", ".*"))
        if not any(map(pattern.fullmatch, known)):
            return f"no such flag as {flag}"
    return None


def modules_in(texts: Iterable[str]) -> frozenset[str]:
    """What texts run with `python -m`, of this repository."""
    named = {module for text in texts for module in _MODULE.findall(text)}
    return frozenset(module for module in named if (ROOT / module.partition(".")[0]).is_dir())


@cache
def _every_flag(modules: frozenset[str]) -> frozenset[str]:
    found = {"--help", "--version"}
    for module in {*_PROGRAMS.values(), *modules}:
        with suppress(ImportError):  # told where it is run
            if (parser := parsers.of_module(module)) is not None:
                found |= parsers.options(parser)
    if (parser := parsers.of_module(parsers.VLLM, "bench")) is not None:  # built only where it is asked for
        found |= parsers.options(parser)
    return frozenset(found)


def own_flags() -> set[str]:
    """The flags that this project adds: those of SGL, and those of `vllm-sgl`."""
    own = parsers.of_module(_PROGRAMS["vllm-sgl"])
    served = parsers.of_module(parsers.VLLM)
    assert own is not None
    assert served is not None
    flags = parsers.options(own) | {flag for flag in parsers.options(served) if flag.startswith("--sgl-")}
    return {flag for flag in flags if flag.startswith("--")} - {"--help", "--version"}


def _check(words: list[str]) -> None:
    program, rest = words[0], words[1:]
    if program == "make":
        if wrong := _wrong_make(rest):
            raise Refused(wrong)
    elif program in OTHERS:
        _check_other(program, rest)
    elif (parser := _parser(words)) is not None:
        _parse(parser, rest[2:] if program == "python" else rest)


def _parse(parser: ArgumentParser, words: list[str]) -> None:
    options = parsers.parse(parser, words)
    if options is None or not hasattr(options, "sgl_small"):
        return
    from vllm_sgl.serve.flags import fold

    with redirect_stdout(StringIO()):
        fold(options)


def _parser(words: list[str]) -> ArgumentParser | None:
    """The parser of a command, that of its subcommand where one is named; None for a file or a module of
    others."""
    program, rest = words[0], words[1:]
    if program in _PROGRAMS:
        subcommand = rest[0] if program == "vllm" and rest and not rest[0].startswith("-") else "serve"
        parser = parsers.of_module(_PROGRAMS[program], subcommand)
        assert parser is not None
        parsers.named(parser, rest)  # raises for a subcommand that is none
        return parser
    if program != "python":
        raise Refused(f"{program}: no program that tools/docs_check/programs.py knows")
    if rest[:1] != ["-m"]:
        if not rest or ("/" in rest[0] and not (ROOT / rest[0]).is_file()):  # else the reader's own
            raise Refused(f"no such file as {' '.join(rest[:1])}")
        return None
    module = rest[1] if len(rest) > 1 else ""
    if not (ROOT / module.partition(".")[0]).is_dir():
        return None
    try:
        return parsers.of_module(module)
    except ImportError as error:
        raise Refused(str(error)) from None


def _check_other(program: str, words: list[str]) -> None:
    if program == "pip":
        _check_extras(words)
    elif program == "curl":
        for flag, value in pairwise(words):
            if flag in ("-d", "--data"):
                json.loads(value)
    elif program == "docker" and words[:1] == ["run"]:
        for place, word in enumerate(words):
            if _IMAGE.fullmatch(word):
                _check(["vllm", "serve", *words[place + 1 :]])
                return


def _check_extras(words: list[str]) -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for named in _EXTRA.findall(" ".join(words)):
        for extra in named.split(","):
            if extra not in known:
                raise Refused(f"no such extra as {extra}; expected one of {', '.join(known)}")


def _wrong_make(words: list[str]) -> str | None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for word in words:
        if "=" not in word and word not in targets:
            return f"no such target as {word}"
    return None


@contextmanager
def _folder(files: Mapping[str, str]) -> Iterator[None]:
    """While open, the working directory is one that has these files."""
    kept = Path.cwd()
    with TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(kept)
