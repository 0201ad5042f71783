"""The ``--sgl-*`` flags: one per field of :class:`SGLConfig`, so that the two cannot drift apart."""

import json
from argparse import ArgumentTypeError, Namespace
from collections.abc import Mapping
from typing import Any

from vllm_sgl.allowed import ALLOWED
from vllm_sgl.config import CONFIG_KEY, FLAG_PREFIX, SGLConfig, named
from vllm_sgl.prune.registry import check_policies
from vllm_sgl.serve import profiles
from vllm_sgl.telemetry import request_log

MIDDLEWARE = "vllm_sgl.serve.middleware.SGLMiddleware"


def add_flags(parser: Any) -> Any:
    """Add the flags to an ``argparse`` parser and return it. Values are checked by :func:`fold`."""
    group = parser.add_argument_group("SGL", "A small vision-language model guides the large one (vllm-sgl).")
    for name, field in SGLConfig.model_fields.items():
        flag = named(name, FLAG_PREFIX)
        if name == "profiles":
            group.add_argument(
                flag, action="extend", nargs="+", default=None, dest=f"sgl_{name}", type=profiles.parsed,
                metavar="NAME=JSON", help=f"{field.description}: {profiles.FORM}; may be given several times",
            )  # fmt: skip
            continue
        if field.annotation is bool:
            group.add_argument(
                flag, action="store_true", default=None, dest=f"sgl_{name}", help=field.description
            )
            continue
        default = "" if field.is_required() else f" (default: {_shown(field.default)})"
        about = field.description or "turn SGL on with this small model"
        kind = json_object if field.annotation == dict[str, Any] else str
        group.add_argument(
            flag, default=None, dest=f"sgl_{name}", type=kind, metavar=name.upper(),
            help=f"{about}: {ALLOWED[name]}{default}",
        )  # fmt: skip
    return parser


def fold(args: Namespace) -> SGLConfig | None:
    """Move the flags into ``args.additional_config`` and add our middleware; None where SGL is off.

    Raises:
        ValueError: for a bad value, or SGL flags without ``--sgl-small``.
    """
    given = {
        name: value
        for name in SGLConfig.model_fields
        if (value := getattr(args, f"sgl_{name}", None)) is not None
    }
    additional = getattr(args, "additional_config", None) or {}
    if not given and CONFIG_KEY not in additional:
        return None
    own = additional.get(CONFIG_KEY, {})
    if not isinstance(own, Mapping):
        raise ValueError(f'additional_config["{CONFIG_KEY}"]: expected an object, received {own!r}')
    if "profiles" in given:
        given["profiles"] = profiles.merged(own.get("profiles"), given["profiles"])
    values = {**own, **given}
    if CONFIG_KEY not in additional and "small" not in given:
        flags = ", ".join(named(name, FLAG_PREFIX) for name in given)
        raise ValueError(f"received {flags} without --sgl-small: name the small model, or drop the rest")
    config = SGLConfig.parse(values, prefix=FLAG_PREFIX)
    check_policies(config.policies, prefix=FLAG_PREFIX)
    request_log.check(config, prefix=FLAG_PREFIX)
    profiles.serve(args, config.profiles)
    args.additional_config = {**additional, CONFIG_KEY: config.model_dump()}
    middleware = getattr(args, "middleware", None)
    if middleware is not None and MIDDLEWARE not in middleware:
        # Inside the user's own, which may compress responses: the last one named is the outermost.
        args.middleware = [MIDDLEWARE, *middleware]
    return config


def json_object(text: str, allowed: str = "a JSON object of vLLM engine arguments") -> dict[str, Any]:
    """A type of ``argparse``.

    Raises:
        ArgumentTypeError: for anything but an object; ``allowed`` says in words what was expected.
    """
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ArgumentTypeError(f"expected {allowed}, received {text!r}")
    return value


def _shown(default: Any) -> str:
    return "off" if default is None else str(default)
