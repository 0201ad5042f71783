"""Large engines that a guide does not work with, refused before anything is started."""

from vllm.config import VllmConfig

from vllm_sgl.families import family_of
from vllm_sgl.host.start.engine_args import (
    refuse_connectors,
    refuse_eager_stages,
    refuse_nodes,
    refuse_replicas,
)


def refuse_unsupported(config: VllmConfig, client_count: int | None) -> None:
    """
    Args:
        config: the large engine's.
        client_count: clients of its engine; None where nobody said.

    Raises:
        ValueError: for what does not work with a guide; the text says what to do.
    """
    family_of(config.model_config)
    refuse_replicas(client_count, config.parallel_config.data_parallel_size)
    refuse_nodes(config)
    refuse_eager_stages(config)
    refuse_connectors(config)
    if getattr(config.lora_config, "enable_tower_connector_lora", False):
        raise ValueError(
            "SGL does not work with --enable-tower-connector-lora: vLLM derives an adapter's vision tokens "
            "from the placeholders, which are pruned. Drop the flag (adapters of the decoder work), or serve "
            "without --sgl-small"
        )
    pruning = config.model_config.multimodal_config.video_pruning_rate
    if pruning:
        raise ValueError(
            f"SGL does not work with --video-pruning-rate; received {pruning}: vLLM's own pruning is done by "
            "the vision encoder, and puts positions into all features. Drop the flag, or serve without "
            "--sgl-small"
        )
