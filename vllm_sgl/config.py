"""Settings: :class:`SGLConfig` for a server, :class:`RequestOptions` for one request.

Both are plain values that check themselves. A bad value names the key, what is allowed and what came.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

#: The key of ``vllm_config.additional_config`` that carries the settings to every process.
CONFIG_KEY = "sgl"
#: Every request key and argument of ``LLM`` starts with this; other keys in ``vllm_xargs`` are not ours.
REQUEST_PREFIX = "sgl_"

_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[KMGT]i?B)", re.IGNORECASE)
_SMALLEST_ENGINE = 1 << 20
_UNITS = {"k": 10, "m": 20, "g": 30, "t": 40}

#: Rows that count for a visual token's importance; see :func:`vllm_sgl.guide.local.recorder.query_rows`.
QueryRows = Literal["prompt+generated", "last_prompt+generated", "prompt", "last_prompt", "generated"]

#: How an image's grid and its thumbnail or base image rank against each other where importance is carried
#: from one layout to another; see :class:`vllm_sgl.visual.transfer.Transfer`.
Views = Literal["joint", "separate", "finest"]

#: Settings that are on or off. Elsewhere Python would take true for the number 1.
_SWITCHES = ("shadow", "enabled")

#: What a value may be, in words, for error messages (settings and request keys share them).
ALLOWED = {
    "small": "the path or name of a small vision-language model",
    "retention": "a number in (0, 1]; 1 keeps every visual token",
    "exit_threshold": "a number in [0, 1], or 'off'",
    "guide_tokens": "a whole number >= 1",
    "query_rows": "'prompt+generated', 'last_prompt+generated', 'prompt', 'last_prompt' or 'generated'",
    "consistency_retention": "a number in (0, 1]",
    "policy": "the name of a policy, such as 'top' or 'tiles', or 'auto'",
    "positions": "'original' or 'packed'",
    "small_memory": "'auto', a share of the device's memory in (0, 1), or a size such as '4GiB'",
    "small_args": "an object of vLLM engine arguments",
    "feature_cache": "'auto', a size such as '256MiB', or 0 to turn the cache off",
    "guide_timeout": "a number of seconds > 0",
    "shadow": "true or false",
    "on_error": "'fallback' or 'fail'",
    "break_even": "'auto' or 'off'",
    "enabled": "0 or 1",
}


def parse_size(value: str | int | float) -> int:
    """Bytes of ``'4GiB'`` and the like (powers of 1024 for KiB and KB alike); plain numbers are bytes."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return int(value)
    if isinstance(value, str):
        if match := _SIZE.fullmatch(value.strip()):
            return int(float(match["number"]) * (1 << _UNITS[match["unit"][0].lower()]))
        if value.strip().isdigit():
            return int(value)
    raise ValueError(f"expected a size in bytes or such as '256MiB', received {value!r}")


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_no_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and info.field_name not in _SWITCHES:
            raise ValueError("a boolean")
        return value

    @field_validator("exit_threshold", mode="before", check_fields=False)
    @classmethod
    def _off_is_none(cls, value: Any) -> Any:
        return None if isinstance(value, str) and value.lower() == "off" else value


class SGLConfig(_Settings):
    """The settings of one server or one :class:`vllm_sgl.LLM`; immutable."""

    small: str = Field(min_length=1)
    retention: float = Field(0.35, gt=0, le=1, description="share of visual tokens the large model keeps")
    exit_threshold: float | None = Field(
        None, ge=0, le=1, description="return the small model's answer when its score reaches this"
    )
    guide_tokens: int = Field(32, ge=1, description="most tokens that the small model generates")
    query_rows: QueryRows = Field(
        "prompt+generated", description="rows whose attention counts for a visual token's importance"
    )
    policy: str = Field("top", min_length=1, description="the rule that picks the kept visual tokens")
    consistency_retention: float = Field(
        0.05, gt=0, le=1, description="share of visual tokens shown in the consistency pass"
    )
    positions: Literal["original", "packed"] = Field(
        "original", description="position ids of kept visual tokens"
    )
    small_memory: str | int | float = Field(
        "auto", description="the small engine's share of the device's memory"
    )
    small_args: dict[str, Any] = Field(
        default_factory=dict, description="vLLM engine arguments of the small engine alone"
    )
    feature_cache: Literal["auto"] | int = Field(
        "auto", description="bytes of recent images' vision features kept in each model"
    )
    guide_timeout: float = Field(60.0, gt=0, description="seconds before a silent guide counts as failed")
    break_even: Literal["auto", "off"] = Field(
        "auto", description="leave requests alone whose guidance would cost more than pruning saves"
    )
    shadow: bool = Field(False, description="guide, decide and report, but answer as if SGL were off")
    on_error: Literal["fallback", "fail"] = Field(
        "fallback", description="what a failing guide does to a request"
    )

    @field_validator("small_memory", mode="before")
    @classmethod
    def _check_small_memory(cls, value: Any) -> str | int | float:
        if value == "auto":
            return "auto"
        if isinstance(value, str) and re.fullmatch(r"[0-9.]+", value):
            value = float(value)
        if isinstance(value, float) and value < 1:
            if value <= 0:
                raise ValueError("not positive")
            return value
        size = parse_size(value)
        if size < _SMALLEST_ENGINE:  # a bare 8 is no engine of 8 bytes
            raise ValueError("smaller than any engine")
        return size

    @field_validator("feature_cache", mode="before")
    @classmethod
    def _check_feature_cache(cls, value: Any) -> str | int:
        return "auto" if value == "auto" else parse_size(value)

    @classmethod
    def parse(cls, values: Mapping[str, Any], prefix: str = REQUEST_PREFIX) -> "SGLConfig":
        """Build from a mapping, e.g. ``additional_config["sgl"]``.

        Args:
            prefix: how the user wrote the keys, for error messages: "sgl_" or "--sgl-".

        Raises:
            ValueError: for an unknown key or a value out of range.
        """
        return _validated(cls, values, prefix)

    @classmethod
    def of(cls, additional_config: Any) -> "SGLConfig | None":
        """The settings inside vLLM's ``additional_config``, or None where SGL is off."""
        if not isinstance(additional_config, Mapping) or CONFIG_KEY not in additional_config:
            return None
        return cls.parse(additional_config[CONFIG_KEY])


class RequestOptions(_Settings):
    """What one request asks for: the server's settings, overridden by its ``sgl_*`` keys."""

    retention: float = Field(gt=0, le=1)
    exit_threshold: float | None = Field(None, ge=0, le=1)
    guide_tokens: int = Field(ge=1)
    query_rows: QueryRows
    policy: str = Field(min_length=1)
    enabled: int = Field(1, ge=0, le=1)

    @classmethod
    def parse(cls, extra_args: Mapping[str, Any] | None, config: SGLConfig) -> "RequestOptions":
        """Options of a request from its ``vllm_xargs`` (``SamplingParams.extra_args``).

        Raises:
            ValueError: for an unknown ``sgl_*`` key, another spelling of one, or a value out of range; the
                text names the key, what is allowed and what was received.
        """
        asked = {}
        for key, value in (extra_args or {}).items():
            spelled = key.lower().replace("-", "_")
            if spelled.startswith(REQUEST_PREFIX):
                if key != spelled:
                    known = [REQUEST_PREFIX + name for name in cls.model_fields]
                    expected = spelled if spelled in known else f"one of {', '.join(known)}"
                    raise ValueError(f"{key}: unknown key, received {value!r}; expected {expected}")
                asked[key.removeprefix(REQUEST_PREFIX)] = value
        defaults = {
            "retention": config.retention,
            "exit_threshold": config.exit_threshold,
            "guide_tokens": config.guide_tokens,
            "query_rows": config.query_rows,
            "policy": config.policy,
        }
        return _validated(cls, defaults | asked, prefix=REQUEST_PREFIX)


Validated = TypeVar("Validated", bound=_Settings)


def _validated(cls: type[Validated], values: Mapping[str, Any], prefix: str) -> Validated:
    if not isinstance(values, Mapping):
        raise ValueError(f"sgl settings: expected an object, received {values!r}")
    try:
        return cls(**values)
    except ValidationError as error:
        raise ValueError("; ".join(_explain(e, cls, prefix) for e in error.errors())) from None


def _explain(error: Any, cls: type[_Settings], prefix: str) -> str:
    def named(field: str) -> str:
        return prefix + (field.replace("_", "-") if prefix.endswith("-") else field)

    key = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        known = ", ".join(named(field) for field in cls.model_fields)
        return f"{named(key)}: unknown key, received {error['input']!r}; expected one of {known}"
    if error["type"] == "missing":
        return f"{named(key)}: missing; expected {ALLOWED[key]}"
    return f"{named(key)}: expected {ALLOWED[key]}, received {error['input']!r}"
