"""Settings that engine arguments carry in ``additional_config``: any engine that is built from them is
guided or refused.

The arguments may come from the command line or from a Python program, and the config from another process
(Ray Serve LLM makes it in a remote task): :class:`Carried` prepares the process that it arrives in.
"""

from collections.abc import Mapping
from multiprocessing import parent_process
from typing import Any

from vllm import EngineArgs

from vllm_sgl.config import CONFIG_KEY, CarriedSettings, SGLConfig
from vllm_sgl.errors import StartRefused
from vllm_sgl.families.variant import UseVariant, activate
from vllm_sgl.host.start import async_llm
from vllm_sgl.host.start.encoder import without_encoder_graphs

_OFFLINE = (
    "vLLM's synchronous engine is not guided; received additional_config with 'sgl': for offline work use "
    "vllm_sgl.LLM(model, sgl_small=...), for a server AsyncEngineArgs and AsyncLLM, or drop the settings"
)


class Carried(CarriedSettings):
    """The large engine's settings in its ``VllmConfig``; unpickling them prepares the process."""

    def __reduce__(self) -> Any:
        return arrived, (self.config,)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Carried":
        return Carried(self.config)


def arrived(config: SGLConfig) -> Carried:
    """Settings from a pickle. vLLM's engine processes receive them too, but build no engine."""
    if parent_process() is None:
        guide_engines()
    return Carried(config)


def use_sgl(engine_args: EngineArgs, config: SGLConfig) -> None:
    """Put the large model's variant and the settings into engine arguments."""
    activate()
    without_encoder_graphs(engine_args)
    engine_args.hf_overrides = UseVariant(config.positions, then=engine_args.hf_overrides)
    engine_args.additional_config = {**(engine_args.additional_config or {}), CONFIG_KEY: Carried(config)}


def guide_engines() -> None:
    """From now on, guide every ``AsyncLLM`` whose config carries settings, and refuse such an ``LLMEngine``;
    idempotent. Registers the variants here and in every process started from here."""
    from vllm_sgl.host.start import llm  # vLLM's LLM, which a server does not load

    activate()
    async_llm.guide_carriers(_engine_client)
    llm.refuse_carriers(_refuse_offline)


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
    where = 'additional_config["sgl"]: '
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
