"""``BaseRenderer``'s processor cache: pixels must stay at hand.

Symptom without it: vLLM's default cache sends the pixels of a known image to the engine only once, and
leaves None in the rendered prompt afterwards; but a rewritten prompt has a new hash, and the small
engine has seen none of the pixels. vLLM has the cache that is wanted ("processor only", used with
several API servers) but no setting that selects it. Remove when it has.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vllm.config import VllmConfig
from vllm.multimodal.cache import processor_only_cache_from_config
from vllm.v1.metrics.stats import MultiModalCacheStats

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = (
    "vllm.renderers.base:BaseRenderer._mm_processor_cache",
    "vllm.renderers.base:BaseRenderer._mm_cache_stats",
)


@contextmanager
def keeping_pixels(config: VllmConfig) -> Iterator[Callable[[Any], None]]:
    """While open, engines are built without the sending cache; call the result with the engine's
    renderer to give it a cache of the configured size that keeps processed images here."""
    multimodal = config.model_config.multimodal_config
    size = multimodal.mm_processor_cache_gb
    multimodal.mm_processor_cache_gb = 0

    def keep(renderer: Any) -> None:
        multimodal.mm_processor_cache_gb = size
        if not hasattr(renderer, "_mm_processor_cache"):
            raise RuntimeError(
                f"{type(renderer).__name__}._mm_processor_cache is missing in this vLLM; expected vLLM "
                "0.32 or 0.33: adapt vllm_sgl/host/render/processor_cache.py"
            )
        renderer._mm_processor_cache = processor_only_cache_from_config(config)
        if renderer._mm_processor_cache is not None:  # else vllm:mm_cache_queries and _hits would stay 0
            renderer._mm_cache_stats = MultiModalCacheStats()

    try:
        yield keep
    finally:
        multimodal.mm_processor_cache_gb = size
