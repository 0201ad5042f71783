"""One request's settings: its keys override its headers, these its profile, and that the server's
settings."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError, ValidationInfo, field_validator

from vllm_sgl.allowed import ALLOWED
from vllm_sgl.config import REQUEST_PREFIX, ProfileSettings, SGLConfig, explained, named
from vllm_sgl.prune.registry import check_policy
from vllm_sgl.request.client_request import Asked

#: Every header of a request that is ours starts with this.
HEADER_PREFIX = "sgl-"

#: As JSON writes one: no signs in front, blanks, underscores, NaN or infinities, which Python would take.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class BadHeaderError(ValueError):
    """A header of the client's that cannot be used; the text names it."""


class RequestOptions(ProfileSettings):
    """One request's settings: the server's, overridden by its profile, headers and keys."""

    profile: str | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_as_in_json(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.field_name
        if isinstance(value, str) and _is_number(name) and not _is_off(name, value):
            return _number(value)
        return value

    @classmethod
    def parse(
        cls,
        extra_args: Mapping[str, Any] | None,
        config: SGLConfig,
        headers: Mapping[str, Any] | None = None,
        profile: str | None = None,
    ) -> "RequestOptions":
        """Options of a request. Its keys win over its headers, those over its profile, and that one over the
        server's settings; a bad header is refused even where a key stands above it.

        Args:
            extra_args: its ``vllm_xargs`` (``SamplingParams.extra_args``).
            headers: what its ``sgl-*`` headers say, as from :func:`header_settings`.
            profile: the one that its model's name names; a ``profile`` in headers or keys wins.

        Raises:
            ValueError: for an unknown key or header, another spelling of one, or a value out of range; the
                text names the key, what is allowed and what was received.
        """
        headers = headers or {}
        keys = _request_keys(cls, extra_args or {})
        if headers.keys() & keys.keys():  # the key hides this header, so nothing else would check it
            cls.parse(None, config, headers)
        if "profile" in headers:
            profile = _known_profile(headers["profile"], config, HEADER_PREFIX)
        if "profile" in keys:
            profile = _known_profile(keys["profile"], config, REQUEST_PREFIX)
        values = {
            **config.model_dump(include=set(ProfileSettings.model_fields)),
            **config.profiles.get(profile or "", {}), **headers, **keys, "profile": profile,
        }  # fmt: skip
        try:
            options = cls(**values)
        except ValidationError as error:
            problems = error.errors()
            if of_headers := [one for one in problems if one["loc"][0] not in keys]:
                raise BadHeaderError(explained(of_headers, cls, HEADER_PREFIX)) from None
            raise ValueError(explained(problems, cls, REQUEST_PREFIX)) from None
        if "policy" in keys:
            check_policy(options.policy)
        elif "policy" in headers:
            try:
                check_policy(options.policy, key=HEADER_PREFIX + "policy")
            except ValueError as error:
                raise BadHeaderError(str(error)) from None
        return options


def options_of(about: Asked, extra_args: Mapping[str, Any] | None, config: SGLConfig) -> RequestOptions:
    """The options of a request of the engine; parsed once for all engine requests of one client request.

    Args:
        about: the client's request.
        extra_args: of the engine request's sampling parameters; before there are any, the keys of ``about``.

    Raises:
        VLLMValidationError: for a bad ``sgl_*`` key or ``sgl-*`` header (a 400 over HTTP).
    """
    keys = own_keys(about.as_written(extra_args))
    shared = keys.keys() == about.keys.keys()  # else each prompt of a Python program has its own
    if shared and about.options is not None:
        return about.options
    try:
        options = RequestOptions.parse(keys, config, header_settings(about.headers), about.profile)
    except ValueError as error:
        from vllm.exceptions import VLLMValidationError

        where = "headers" if isinstance(error, BadHeaderError) else "vllm_xargs"
        raise VLLMValidationError(str(error), parameter=where) from None
    if shared:
        about.options = options
    return options


def header_settings(headers: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The settings in headers, by name. :meth:`RequestOptions.parse` checks their ranges.

    Args:
        headers: names and values; those that are not ours, in whatever spelling, are left out.

    Raises:
        BadHeaderError: for an unknown header with our prefix, for one that comes twice, or for text where a
            number is expected; the text names the header, what is allowed and what came.
    """
    settings: dict[str, Any] = {}
    known = {named(field, HEADER_PREFIX): field for field in RequestOptions.model_fields}
    for header, text in headers:
        name = header.lower()  # HTTP does not tell them apart
        if not name.replace("_", "-").startswith(HEADER_PREFIX):
            continue
        if name not in known:
            right = name.replace("_", "-")
            expected = right if right in known else f"one of {', '.join(known)}"
            raise BadHeaderError(f"{name}: unknown header, received {text!r}; expected {expected}")
        field = known[name]
        if field in settings:
            raise BadHeaderError(f"{name}: expected once, received {settings[field]!r} and {text!r}")
        settings[field] = _header_value(name, field, text)
    return settings


def _is_number(field: str | None) -> bool:
    return field is not None and RequestOptions.model_fields[field].annotation in (int, float, float | None)


def _is_off(field: str | None, text: str) -> bool:
    return field == "exit_threshold" and text.lower() == "off"


def _header_value(name: str, field: str, text: str) -> Any:
    """A header's text as a key's value: a number where the setting is one."""
    if not _is_number(field) or _is_off(field, text):
        return text
    try:
        return _number(text)
    except ValueError:
        raise BadHeaderError(f"{name}: expected {ALLOWED[field]}, received {text!r}") from None


def _number(text: str) -> int | float:
    """
    Raises:
        ValueError: for anything else, and for more digits than Python reads.
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError("no number")
    number: int | float = json.loads(text)
    return number


def own_keys(extra_args: Mapping[str, Any]) -> dict[str, Any]:
    """The ``vllm_xargs`` of a request that are ours or are misspelled as if they were; not checked."""
    return {key: value for key, value in extra_args.items() if _spelled(key).startswith(REQUEST_PREFIX)}


def _spelled(key: str) -> str:
    return key.lower().replace("-", "_")


def _request_keys(cls: type[RequestOptions], extra_args: Mapping[str, Any]) -> dict[str, Any]:
    """The ``sgl_*`` keys among them, without the prefix."""
    asked = {}
    for key, value in own_keys(extra_args).items():
        if key != (spelled := _spelled(key)):
            known = [REQUEST_PREFIX + name for name in cls.model_fields]
            expected = spelled if spelled in known else f"one of {', '.join(known)}"
            raise ValueError(f"{key}: unknown key, received {value!r}; expected {expected}")
        asked[key.removeprefix(REQUEST_PREFIX)] = value
    return asked


def _known_profile(name: Any, config: SGLConfig, prefix: str) -> str:
    if isinstance(name, str) and name in config.profiles:
        return name
    known = " or ".join(map(repr, config.profiles)) or "none, for the server has no profiles (--sgl-profile)"
    kind = BadHeaderError if prefix == HEADER_PREFIX else ValueError
    raise kind(f"{prefix}profile: expected {known}, received {name!r}")
