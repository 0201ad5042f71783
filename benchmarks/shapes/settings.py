"""Settings of SGL that are compared with plain vLLM: request keys, and flags of a server of its own.

A setting is a name of `KNOWN`, or NAME:PART[,PART...] with parts sgl_KEY=VALUE (a request key), --FLAG=VALUE
(a flag of ``vllm serve``) or the name of a known setting, whose keys it then has:

    late:35% tiles,--sgl-follow-ups=late
"""

import argparse
from dataclasses import dataclass, field
from typing import Any

from benchmarks.support.pair import Variant


@dataclass(frozen=True)
class Setting:
    """name: for tables. keys: a request's ``vllm_xargs``. flags: of the server."""

    name: str
    keys: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


PLAIN = Setting("plain")


def _known(name: str, retention: float, threshold: float | str = "off", policy: str = "top") -> Setting:
    keys = {"sgl_retention": retention, "sgl_exit_threshold": threshold, "sgl_policy": policy}
    return Setting(name, keys)


KNOWN = {
    setting.name: setting
    for setting in (
        _known("nothing to do", 1.0),
        _known("35% top", 0.35),
        _known("35% tiles", 0.35, policy="tiles"),
        _known("18% top", 0.18),
        _known("18% tiles", 0.18, policy="tiles"),
        _known("9% tiles", 0.09, policy="tiles"),
        _known("35% tiles, exits", 0.35, 0.9, "tiles"),
        _known("18% tiles, exits", 0.18, 0.9, "tiles"),
    )
}
#: What is measured where nothing is named. The first does vLLM's work alone: its distance from 1 is noise.
DEFAULT = ("nothing to do", "35% tiles", "18% tiles", "35% tiles, exits")


def setting(text: str) -> Setting:
    """From the command line.

    Raises:
        argparse.ArgumentTypeError: with what was expected.
    """
    if text in KNOWN:
        return KNOWN[text]
    name, colon, parts = text.partition(":")
    if not colon or not name or not parts:
        raise argparse.ArgumentTypeError(
            f"expected one of {', '.join(map(repr, KNOWN))}, or NAME:PART[,PART...] with parts "
            f"sgl_KEY=VALUE, --FLAG=VALUE or one of these names; received {text!r}"
        )
    keys: dict[str, Any] = {}
    flags: list[str] = []
    for part in parts.split(","):
        key, equals, value = part.partition("=")
        if part in KNOWN:
            keys |= KNOWN[part].keys
        elif key.startswith("--"):
            flags.append(part)
        elif key.startswith("sgl_") and equals:
            keys[key] = _value(value)
        else:
            raise argparse.ArgumentTypeError(
                f"{name}: expected sgl_KEY=VALUE, --FLAG=VALUE or a known name, received {part!r}"
            )
    return Setting(name, keys, tuple(flags))


def variants(settings: list[Setting]) -> dict[tuple[str, ...], Variant]:
    """The SGL servers that they need, by flags: settings that differ in request keys alone share one."""
    flags = dict.fromkeys(one.flags for one in settings)
    return {own: Variant(f"sgl-{number}", flags=own) for number, own in enumerate(flags)}


def in_turn(settings: list[Setting], case: int) -> list[Setting]:
    """Plain and all settings, in the order of the case of this number: each begins as often as any other."""
    everything = [PLAIN, *settings]
    first = case % len(everything)
    return [*everything[first:], *everything[:first]]


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
