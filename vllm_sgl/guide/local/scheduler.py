"""The small engine's scheduler: its prefix cache serves images and text before a request's query rows."""

from typing import Any

from vllm.config import VllmConfig

from vllm_sgl.guide.local.worker import ROWS_KEY
from vllm_sgl.host.worker.guide_cache import CappingScheduler


class GuideScheduler(CappingScheduler):
    @staticmethod
    def first_row(extra_args: dict[str, Any]) -> int | None:
        """The row before the first query row is computed too: it may have to stand in (see
        :class:`vllm_sgl.guide.local.recorder.Tracked`)."""
        rows = extra_args.get(ROWS_KEY)
        return None if rows is None else max(0, rows[0] - 1)


def use_guide_scheduler(config: VllmConfig) -> None:
    """Give the small engine its scheduler; one that the user chose stays."""
    if config.scheduler_config.scheduler_cls is None:
        config.scheduler_config.scheduler_cls = GuideScheduler


def reads_cache(config: VllmConfig) -> bool:
    """Whether looks may use an engine's prefix cache: only this scheduler ends hits in time, and not where a
    layer carries a state, which is kept at the end of a hit alone."""
    caching = bool(config.cache_config.enable_prefix_caching) and not config.model_config.is_hybrid
    return caching and config.scheduler_config.scheduler_cls is GuideScheduler
