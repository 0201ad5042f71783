"""The argument parsers that programs really use, taken from them as they begin to parse."""

import argparse
import io
import runpy
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from typing import Any, NoReturn

#: vLLM's command line with ours in it: the plugin looks for a flag of its own as vLLM builds its parser.
VLLM = "vllm.entrypoints.cli.main"


class _Taken(BaseException):  # no `except Exception` of a program is to see it
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


class Refused(Exception):
    """A parser's own words about a command line."""


@cache
def of_module(module: str, subcommand: str = "serve") -> argparse.ArgumentParser | None:
    """The parser of `python -m MODULE`, which runs until it parses; None where it ends without.

    Args:
        subcommand: of vLLM's command line, which builds some parsers only where they are asked for.

    Raises:
        ImportError: there is no such module.
    """
    arguments = ["vllm", subcommand, "--sgl-small", "x"] if module == VLLM else [module]
    with _patched(parse_known_args=_take), _argv(arguments), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of modules that are imported already
        try:
            runpy.run_module(module, run_name="__main__")
        except _Taken as taken:
            return taken.parser
        except SystemExit:
            pass
    return None


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace | None:
    """What a parser makes of a command line; None where that asks for help or a version, and no more.

    Raises:
        Refused: the command line is wrong, or has a flag cut short, which another release may not understand.
    """
    _spell_out(parser)
    with _patched(error=_refuse), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            return parser.parse_args(list(words))
        except SystemExit as end:
            if end.code:
                raise Refused(str(end.code)) from None
            return None


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """By their names."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def named(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the subcommand that the first words name, if they do.

    Raises:
        Refused: the first word is no subcommand, where there are such.
    """
    choices = subparsers(parser)
    if not choices or not words or words[0].startswith("-"):
        return parser
    if words[0] not in choices:
        raise Refused(f"{words[0]}: expected one of {', '.join(choices)}")
    return named(choices[words[0]], words[1:])


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Every flag of a parser and of its subcommands."""
    found = set(parser._option_string_actions)
    return found.union(*map(options, subparsers(parser).values()))


def _spell_out(parser: argparse.ArgumentParser) -> None:
    parser.allow_abbrev = False
    for one in subparsers(parser).values():
        _spell_out(one)


def _take(self: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
    raise _Taken(self)


def _refuse(self: argparse.ArgumentParser, message: str) -> NoReturn:
    raise Refused(message)


@contextmanager
def _patched(**methods: Any) -> Iterator[None]:
    kept = {name: getattr(argparse.ArgumentParser, name) for name in methods}
    for name, method in methods.items():
        setattr(argparse.ArgumentParser, name, method)
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(argparse.ArgumentParser, name, method)


@contextmanager
def _argv(arguments: list[str]) -> Iterator[None]:
    kept, sys.argv = sys.argv, arguments
    try:
        yield
    finally:
        sys.argv = kept
