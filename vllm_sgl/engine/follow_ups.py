"""What a large engine's prefix cache lets follow-ups reuse."""

import logging
from typing import Any

from vllm.config import VllmConfig

from vllm_sgl.config import SGLConfig
from vllm_sgl.decide.costs import Costs
from vllm_sgl.decide.follow_ups import FollowUps, mode
from vllm_sgl.host.render.turns import Turns
from vllm_sgl.prune.memory import Memory

logger = logging.getLogger("vllm.vllm_sgl.engine")


def follow_ups_of(
    large: VllmConfig, renderer: Any, config: SGLConfig, costs: Costs | None
) -> FollowUps | None:
    """The memory of what a large engine was given; None for one without a prefix cache.

    Args:
        renderer: the large model's, whose prompts carry their conversations.
        costs: of both models; None where they are not compared.
    """
    cache = large.cache_config
    if not cache.enable_prefix_caching:
        logger.info("SGL: every request is decided by itself: the large engine has no prefix cache")
        return None
    logger.info(
        "SGL: follow-ups are %r under the server's own settings (--sgl-follow-ups %s at retention %g)",
        mode(config), config.follow_ups, config.retention,
    )  # fmt: skip
    return FollowUps(Memory(), cache.block_size, Turns(renderer).last_start, config.hot_after, costs)
