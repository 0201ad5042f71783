"""What makes engine arguments those of an SGL large engine."""

from vllm import EngineArgs

from vllm_sgl.config import CONFIG_KEY, SGLConfig
from vllm_sgl.families.variant import UseVariant, activate
from vllm_sgl.host.start.encoder_graphs import without_encoder_graphs


def use_sgl(engine_args: EngineArgs, config: SGLConfig) -> None:
    """Give them the large model's variant, and the settings on board."""
    activate()
    without_encoder_graphs(engine_args)
    engine_args.hf_overrides = UseVariant(config.positions, then=engine_args.hf_overrides)
    engine_args.additional_config = {
        **(engine_args.additional_config or {}),
        CONFIG_KEY: config.model_dump(),
    }
