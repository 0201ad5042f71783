"""Profiles: the server answers to ``MODEL:NAME`` for each, beside ``MODEL``."""

import json
from argparse import ArgumentTypeError, Namespace
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vllm_sgl.request import client_request

#: What ``--sgl-profile`` takes.
FORM = """NAME=JSON, such as fast={"retention": 0.2}, or a JSON object of profiles by name"""


def parsed(text: str) -> dict[str, Any]:
    """Profiles by name, from one value of the flag; their settings are checked later.

    Raises:
        ArgumentTypeError: where the text is in neither form.
    """
    name, _, settings = ("", "", text) if text.startswith("{") else text.partition("=")
    try:
        value = json.loads(settings, object_pairs_hook=_without_repeats)
    except ValueError as error:
        about = f" ({error})" if isinstance(error, _Repeated) else ""
        raise ArgumentTypeError(f"expected {FORM}; received {text!r}{about}") from None
    return value if text.startswith("{") else {name: value}


def merged(own: Any, given: Sequence[Mapping[str, Any]]) -> Any:
    """Profiles of ``additional_config`` and of the flags; a flag wins over ``additional_config``, profile by
    profile.

    Raises:
        ValueError: where two flags name one profile.
    """
    flags: dict[str, Any] = {}
    for profiles in given:
        for name, settings in profiles.items():
            if name in flags:
                raise ValueError(f"--sgl-profile {name}: given twice (a --config file counts); drop one")
            flags[name] = settings
    if own is not None and not isinstance(own, Mapping):
        return own  # refused as such
    return {**(own or {}), **flags}


def serve(args: Namespace, profiles: Collection[str]) -> None:
    """Make vLLM answer to the profiles' names, as it does to every ``--served-model-name``.

    Raises:
        ValueError: where such a name is taken by a model or a LoRA adapter.
    """
    if not profiles or not hasattr(args, "served_model_name"):
        return
    if not hasattr(args, "sgl_served_names"):  # once, for these names become vLLM's below
        given = args.served_model_name or args.model
        args.sgl_served_names = [given] if isinstance(given, str) else list(given)
    served = args.sgl_served_names
    adapters = [adapter.name for adapter in getattr(args, "lora_modules", None) or []]
    names = []
    for model in served:
        for profile in profiles:
            name = f"{model}:{profile}"
            if name in served or name in adapters:
                kind = "--served-model-name" if name in served else "--lora-modules"
                raise ValueError(f"--sgl-profile {profile}: {name!r} is also one of {kind}; rename either")
            names.append(name)
    args.served_model_name = [*served, *names]


class Naming:
    """Maps a requested model name to a profile, after vLLM has looked it up.

    Args:
        profiles: the server's.
    """

    def __init__(self, profiles: Collection[str]) -> None:
        self._profiles = profiles

    def note(self, name: str | None, served: Collection[str]) -> None:
        """A request's model name, and those that the server answers to."""
        about = client_request.current.get()
        model, _, profile = (name or "").rpartition(":")
        if about is not None and profile in self._profiles and {name, model} <= set(served):
            about.model, about.profile = name, profile

    def answered(self) -> str | None:
        """The model name that the answer carries: the one that was asked for, where it names a profile."""
        about = client_request.current.get()
        return None if about is None else about.model


class _Repeated(ValueError):
    """A name twice in one JSON object."""


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Repeated(f"{next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return value
