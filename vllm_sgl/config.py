"""Settings: :class:`SGLConfig` for a server, :class:`ProfileSettings` for one of its profiles. Those of one
request are :class:`vllm_sgl.request.options.RequestOptions`.

All are plain values that check themselves. An error names the key, what is allowed and what came.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from vllm_sgl.allowed import ALLOWED
from vllm_sgl.sizes import parse_size

#: The key of ``vllm_config.additional_config`` that carries the settings to every process.
CONFIG_KEY = "sgl"
#: Every request key and argument of ``LLM`` starts with this; other keys in ``vllm_xargs`` are not ours.
REQUEST_PREFIX = "sgl_"
#: Every flag starts with this.
FLAG_PREFIX = "--sgl-"

_SMALLEST_ENGINE = 1 << 20
#: A profile stands after a colon in a model's name, in lists and in URLs.
_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
#: Names that would read as "no profile".
_NO_PROFILE = ("off", "none", "default")
#: Rows that count for a visual token's importance; see :func:`vllm_sgl.guide.local.recorder.query_rows`.
_FirstRows = Literal["last_turn", "prompt", "last_prompt", "generated"]
QueryRows = Literal["last_turn+generated", "prompt+generated", "last_prompt+generated", _FirstRows]
#: See :mod:`vllm_sgl.decide.scores`.
ExitScore = Literal["paper", "product", "lowest", "geometric_mean", "product_consistency"]
#: See :mod:`vllm_sgl.decide.follow_ups`.
FollowUpMode = Literal["auto", "late", "sticky", "off"]
HotAfter = Literal["auto"] | Annotated[int, Field(ge=1)] | None
#: How an image's grid and its thumbnail or base image rank against each other where importance is carried
#: from one layout to another; see :class:`vllm_sgl.visual.transfer.Transfer`.
Views = Literal["auto", "joint", "separate", "finest"]

#: Settings that are on or off. Elsewhere Python would take true for the number 1.
_SWITCHES = ("shadow", "log_text", "enabled")


def named(field: str, prefix: str) -> str:
    """The name of a setting as a user writes it: its key, header or flag. The flag of profiles is in the
    singular, because it is given once per profile."""
    if prefix == FLAG_PREFIX and field == "profiles":
        field = "profile"
    return prefix + (field.replace("_", "-") if prefix.endswith("-") else field)


class _ProfileError(ValueError):
    """A profile that cannot be used; the text names it, and what is allowed."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_no_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and info.field_name not in _SWITCHES:
            raise ValueError("a boolean")
        return value

    @field_validator("exit_threshold", "hot_after", "log", "shadow_log", mode="before", check_fields=False)
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
    exit_score: ExitScore = Field("paper", description="how the small model's answer is scored for an exit")
    guide_tokens: int = Field(32, ge=1, description="most tokens that the small model generates")
    query_rows: QueryRows = Field(
        "last_turn+generated", description="rows whose attention counts for a visual token's importance"
    )
    policy: str = Field("top", min_length=1, description="the rule that picks the kept visual tokens")
    consistency_retention: float = Field(
        0.05, gt=0, le=1, description="share of visual tokens shown in the consistency pass"
    )
    positions: Literal["original", "packed"] = Field(
        "original", description="position ids of kept visual tokens"
    )
    views: Views = Field(
        "auto",
        description="how thumbnail and grid tokens are ranked together if the two models tile images "
        "differently",
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
    guide_memory: int = Field(
        1024, ge=0, description="results of the small model to keep for identical requests"
    )
    break_even: Literal["auto", "measure", "off"] = Field(
        "auto", description="skip the guide if it would cost more than pruning saves"
    )
    follow_ups: FollowUpMode = Field("auto", description="what is kept of images of earlier requests")
    hot_after: HotAfter = Field("auto", description="looks at one image after which it is sent unpruned")
    shadow: bool = Field(False, description="guide, decide and report, but answer as if SGL were off")
    on_error: Literal["fallback", "fail"] = Field(
        "fallback", description="what happens to a request if the guide fails"
    )
    profiles: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="settings of requests that ask for MODEL:NAME"
    )

    log: str | None = Field(None, min_length=1, description="one JSON object a line for each request")
    shadow_log: str | None = Field(
        None, min_length=1, description="a shadow's log, which also says whether both models' answers agree"
    )
    log_size: int = Field(
        64 << 20, ge=4096, description="how long a log grows before the next one begins (five are kept)"
    )
    log_text: bool = Field(False, description="log the texts of prompts and answers too")

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
        if size < _SMALLEST_ENGINE:  # 8 means 8 bytes, and certainly a slip
            raise ValueError("smaller than any engine")
        return size

    @field_validator("feature_cache", mode="before")
    @classmethod
    def _check_feature_cache(cls, value: Any) -> str | int:
        return "auto" if value == "auto" else parse_size(value)

    @field_validator("log_size", mode="before")
    @classmethod
    def _check_log_size(cls, value: Any) -> int:
        return parse_size(value)

    @field_validator("profiles", mode="before")
    @classmethod
    def _check_profiles(cls, value: Any) -> dict[str, dict[str, Any]]:
        if not isinstance(value, Mapping):
            raise ValueError("no mapping")
        return {name: _profile(name, settings) for name, settings in value.items()}

    @property
    def policies(self) -> Mapping[str, str]:
        """Policies by the name of the profile that sets them; the server's own under ""."""
        own = {name: values["policy"] for name, values in self.profiles.items() if "policy" in values}
        return {"": self.policy, **own}

    @classmethod
    def parse(cls, values: Mapping[str, Any], prefix: str = REQUEST_PREFIX) -> "SGLConfig":
        """Build from a mapping, e.g. ``additional_config["sgl"]``.

        Args:
            prefix: how the user wrote the keys, for error messages: "sgl_" or "--sgl-".

        Raises:
            ValueError: for an unknown key or a value out of range.
        """
        return validated(cls, values, prefix)

    @classmethod
    def of(cls, additional_config: Any) -> "SGLConfig | None":
        """The settings inside vLLM's ``additional_config``; None if SGL is off."""
        if not isinstance(additional_config, Mapping) or CONFIG_KEY not in additional_config:
            return None
        own = additional_config[CONFIG_KEY]
        return own.config if isinstance(own, CarriedSettings) else cls.parse(own)


class CarriedSettings(dict[str, Any]):
    """``additional_config["sgl"]``: plain values for vLLM, and the settings that they are."""

    def __init__(self, config: SGLConfig) -> None:
        super().__init__(config.model_dump())
        self.config = config


class ProfileSettings(_Settings):
    """What a profile may set: everything that a request may."""

    retention: float = Field(gt=0, le=1)
    exit_threshold: float | None = Field(None, ge=0, le=1)
    exit_score: ExitScore = "paper"
    guide_tokens: int = Field(ge=1)
    query_rows: QueryRows
    policy: str = Field(min_length=1)
    follow_ups: FollowUpMode = "auto"
    enabled: int = Field(1, ge=0, le=1)


def _profile(name: Any, settings: Any) -> dict[str, Any]:
    """A profile's settings, as they are after validation."""
    if not isinstance(name, str) or not _PROFILE.fullmatch(name):
        raise _ProfileError(
            f"{name!r}: expected a name of letters, digits, '.', '_' and '-', a letter or digit first"
        )
    if name.lower() in _NO_PROFILE:
        raise _ProfileError(
            f"{name}: the name is reserved, for it reads as no profile; expected another one. MODEL alone is "
            "the server's own settings, and a profile of {'enabled': 0} turns SGL off"
        )
    if not isinstance(settings, Mapping):
        raise _ProfileError(f"{name}: expected an object such as {{'retention': 0.2}}, received {settings!r}")
    defaults = SGLConfig(small="-").model_dump(include=set(ProfileSettings.model_fields))
    try:
        checked = validated(ProfileSettings, {**defaults, **settings}, prefix="")
    except ValueError as error:
        raise _ProfileError(f"{name}: {error}") from None
    return checked.model_dump(include=set(settings))


Validated = TypeVar("Validated", bound=_Settings)


def validated(cls: type[Validated], values: Mapping[str, Any], prefix: str) -> Validated:
    """Settings of these values.

    Args:
        prefix: how the user wrote the keys: "sgl_", "--sgl-", "sgl-" or "".

    Raises:
        ValueError: for an unknown, missing or bad value; the text names each, what is allowed and what came.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"sgl settings: expected an object, received {values!r}")
    try:
        return cls(**values)
    except ValidationError as error:
        raise ValueError(explained(error.errors(), cls, prefix)) from None


def explained(errors: Iterable[Any], cls: type[_Settings], prefix: str) -> str:
    """Pydantic's errors in words: each names its key, what is allowed and what came.

    Args:
        prefix: as for :func:`validated`.
    """
    return "; ".join(_explain(error, cls, prefix) for error in errors)


def _explain(error: Any, cls: type[_Settings], prefix: str) -> str:
    field = str(error["loc"][0])
    key = named(field, prefix)
    reason = error.get("ctx", {}).get("error")
    if isinstance(reason, _ProfileError):
        return f"{key} {reason}"
    if error["type"] == "extra_forbidden":
        known = ", ".join(named(field, prefix) for field in cls.model_fields)
        return f"{key}: unknown key, received {error['input']!r}; expected one of {known}"
    if error["type"] == "missing":
        return f"{key}: missing; expected {ALLOWED[field]}"
    return f"{key}: expected {ALLOWED[field]}, received {error['input']!r}"
