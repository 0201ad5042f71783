"""Engines that a Python program builds: settings in ``additional_config`` guide them too, or end the start.

A config says so itself, also where another process made it (Ray Serve LLM makes it in a remote task): the
settings on board are :class:`Carried`.
"""

from collections.abc import Mapping
from copy import deepcopy
from multiprocessing import parent_process
from typing import Any

from vllm_sgl.config import CONFIG_KEY, SGLConfig
from vllm_sgl.errors import StartRefused
from vllm_sgl.families.variant import UseVariant, activate
from vllm_sgl.host.start import async_llm

_OFFLINE = (
    "vLLM's synchronous engine is not guided; received additional_config with 'sgl': for offline work use "
    "vllm_sgl.LLM(model, sgl_small=...), for a server AsyncEngineArgs and AsyncLLM, or drop the settings"
)


class Carried(dict[str, Any]):
    """Settings on board of a ``VllmConfig``. Where they arrive in another process, that one is prepared."""

    def __reduce__(self) -> Any:
        return arrived, (dict(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Carried":
        return Carried(deepcopy(dict(self), memo))


def arrived(settings: dict[str, Any]) -> Carried:
    """Settings that come out of a pickle. vLLM's engine processes get them too, and build no engine."""
    if parent_process() is None:
        open_doors()
    return Carried(settings)


def open_doors() -> None:
    """From now on an ``AsyncLLM`` whose config carries settings is guided, and an ``LLMEngine`` is refused;
    idempotent. The variants are registered here and in every process started from here."""
    from vllm_sgl.host.start import llm  # vLLM's LLM, which a server does not load

    activate()
    async_llm.open_door(_engine_client)
    llm.close_door(_refuse_offline)


def checked_settings(additional_config: Mapping[str, Any], offline: bool) -> SGLConfig:
    """The settings that a Python program wrote into ``additional_config``.

    Args:
        offline: whether ``vllm.LLM`` makes the config.

    Raises:
        StartRefused: for an unknown key, a value out of range, or ``vllm.LLM``.
    """
    from vllm_sgl.prune.registry import check_policies
    from vllm_sgl.telemetry import request_log

    if offline:
        raise StartRefused(_OFFLINE)
    where = f'additional_config["{CONFIG_KEY}"]: '
    try:
        config = SGLConfig.parse(additional_config[CONFIG_KEY])
        check_policies(config.policies)
        request_log.check(config)
    except ValueError as error:
        raise StartRefused(f"{where}{error}") from None
    return config


def _engine_client(hf_overrides: Any) -> type:
    """The class of a guided engine.

    Raises:
        StartRefused: for a config whose model is not our variant, as one that was put together by hand.
    """
    if not isinstance(hf_overrides, UseVariant):
        raise StartRefused(
            "this VllmConfig carries settings in additional_config['sgl'], but its model was not made for "
            "them: make it by AsyncEngineArgs(..., additional_config={'sgl': {...}}).create_engine_config(), "
            "with vLLM's general plugins loaded (VLLM_PLUGINS unset, or with sgl), or drop the settings"
        )
    from vllm_sgl.engine.client import SGLAsyncLLM

    return SGLAsyncLLM


def _refuse_offline() -> None:
    raise StartRefused(_OFFLINE)
