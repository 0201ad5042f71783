"""The vision encoder in an engine's config: how much start-up profiles, what features take, no CUDA
graphs."""

from vllm import EngineArgs
from vllm.config import VllmConfig
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.encoder_budget import MultiModalBudget
from vllm.platforms import current_platform

from vllm_sgl.config import SGLConfig

#: The default bound of an engine's vision feature cache.
FEATURES_MOST = {"cpu": 256 << 20, "cuda": 1 << 30}


def without_encoder_graphs(engine_args: EngineArgs) -> None:
    """Turn off CUDA graphs of the vision encoder (``CompilationConfig.cudagraph_mm_encoder``), whatever the
    user set.

    Symptom without it: a captured encoder returns every visual token of an image without calling the model's
    ``embed_multimodal``, which picks the kept ones, and vLLM takes the first of them for the kept ones. A
    model's class cannot decline: vLLM asks whether it inherits a protocol, and ours inherit what vLLM's
    models do. Remove when a model can decline.
    """
    engine_args.compilation_config.cudagraph_mm_encoder = False


def profiled_tokens(config: VllmConfig) -> int:
    """Visual tokens of the one call of the encoder by which vLLM's start-up measures its memory: as many of
    the largest items as its budget takes. 0 where no images are allowed."""
    budget = _budget(config)
    if not budget.mm_max_toks_per_item:
        return 0
    modality = budget.get_modality_with_max_tokens()
    return budget.mm_max_items_per_batch[modality] * budget.mm_max_toks_per_item[modality]


def feature_cache_bytes(config: VllmConfig) -> int:
    """The bound of the vision feature cache that an engine keeps on each device: what the user set, or as
    many of the largest images as may run at once, at most :data:`FEATURES_MOST`. 0 without SGL."""
    settings = SGLConfig.of(config.additional_config)
    if settings is None:
        return 0
    if settings.feature_cache != "auto":
        return settings.feature_cache
    model = config.model_config
    largest = max(_budget(config).mm_max_toks_per_item.values(), default=0)
    # DeepStack (Qwen3-VL): a row has the features of some layers of the encoder beside its last one's.
    vision = getattr(model.hf_config, "vision_config", None)
    layers = 1 + len(getattr(vision, "deepstack_visual_indexes", None) or ())
    each = largest * layers * model.get_inputs_embeds_size() * model.dtype.itemsize
    most = FEATURES_MOST["cpu" if current_platform.is_cpu() else "cuda"]
    return min(config.scheduler_config.max_num_seqs * each, most)


def _budget(config: VllmConfig) -> MultiModalBudget:
    return MultiModalBudget(config, MULTIMODAL_REGISTRY, enable_cache=False)
