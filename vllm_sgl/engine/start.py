"""Starting the engines: the small one beside the large one, and what to do about one that does not start."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from multiprocessing import active_children

from transformers import PreTrainedConfig
from vllm.config import VllmConfig

from vllm_sgl.config import SGLConfig
from vllm_sgl.engine.memory import share_memory
from vllm_sgl.engine.memory_apart import are_apart, share_apart
from vllm_sgl.engine.small_size import check_pinned, fit_sequences, fitting_context
from vllm_sgl.errors import StartRefused
from vllm_sgl.families import family_of, prompt_format
from vllm_sgl.families.variant import UseVariant
from vllm_sgl.guide.guards.restart import Revived
from vllm_sgl.guide.local.guide import LocalGuide
from vllm_sgl.guide.local.scheduler import use_guide_scheduler
from vllm_sgl.guide.local.worker import GuideWorkerExtension
from vllm_sgl.host.request.output import EngineDeadError
from vllm_sgl.host.start import small_engine
from vllm_sgl.host.start.async_llm import AsyncLLM
from vllm_sgl.host.start.device import device
from vllm_sgl.host.start.kv_need import sequence_bytes
from vllm_sgl.pair.verdict import judge

logger = logging.getLogger("vllm.vllm_sgl.engine")

_EXTENSION = f"{GuideWorkerExtension.__module__}.{GuideWorkerExtension.__qualname__}"


def small_config(large: VllmConfig, config: SGLConfig, context: int | None = None) -> VllmConfig:
    """The small engine's config, with the small model's variant and our worker extension.

    Args:
        context: its context length; None for the large engine's, or what its model was made for.

    Raises:
        ValueError: where the small model is missing or is no supported vision-language model.
    """
    variant = UseVariant(config.positions, then=config.small_args.get("hf_overrides"))
    own = prompt_format(large.model_config.hf_config)

    def alike(small: PreTrainedConfig) -> bool:
        return prompt_format(small) == own

    small = small_engine.small_config(large, config, variant, _EXTENSION, alike, context)
    try:
        family_of(small.model_config)
    except ValueError as error:
        raise ValueError(f"--sgl-small {config.small}: {error}") from error
    use_guide_scheduler(small)
    return small


class SmallEngines:
    """Starts the small engine beside a large one, and again after its death, in the memory it had.

    Shares the device's memory out in both configs.

    config: the small engine's. verdict: how it guides.
    planned: whether both engines' KV caches have sizes that are known before they start, so that they may
        start side by side.

    Raises:
        ValueError: for a pair that cannot work together, or that does not fit the device.
    """

    def __init__(self, large: VllmConfig, config: SGLConfig) -> None:
        small = small_config(large, config)
        self.verdict = judge(large.model_config, small.model_config)
        if self.verdict.way == "refused":
            raise ValueError(str(self.verdict))
        logger.info("SGL: %s", self.verdict)
        if self.verdict.way != "crossed" and config.views != SGLConfig.model_fields["views"].default:
            logger.warning(
                "SGL: --sgl-views %s has no effect: both models cut images alike, and the small model's own "
                "attention ranks thumbnails against grids", config.views,
            )  # fmt: skip
        if context := fitting_context(large, small, config):
            small = small_config(large, config, context)
        _refuse_small_context(small)
        share = share_apart if are_apart(large, small) else share_memory
        plan = share(large, small, config)
        fit_sequences(small, config, plan, sequence_bytes(small))
        check_pinned(small, large)
        self.config = small
        # On a GPU vLLM takes a share of the device, and measures what others have of it.
        self.planned = device().kind == "cpu"
        self._blocks: int | None = None
        self._others: set[int | None] | None = None  # processes that ran before the start that is under way
        self._own: set[int | None] | None = None  # the start's own, where others are started beside it

    def start(self) -> AsyncLLM:
        """Blocks until the model is loaded. Unless memory is planned, before the large engine's first start,
        so that that one measures what is left of the device."""
        config = deepcopy(self.config)  # an engine writes into its own
        if self._blocks is not None:
            # Beside the large engine, vLLM would measure another size than when the small one was alone.
            config.cache_config.num_gpu_blocks_override = self._blocks
        self._others = {child.pid for child in active_children()}
        try:
            engine = small_engine.start_small(config)
        finally:
            self._others = self._own = None
        self._blocks = config.cache_config.num_gpu_blocks
        return engine

    def claim_processes(self) -> bool:
        """Whether a start under way in another thread has its process; those that are started from now on are
        none of its."""
        if (others := self._others) is None:
            return False
        self._own = {child.pid for child in active_children()} - others or None
        return self._own is not None

    def give_up(self) -> None:
        """Kill engine processes that another thread is starting; while they load a model they ignore a
        shutdown for seconds."""
        if (others := self._others) is None:
            return
        own = self._own
        for child in active_children():
            if child.pid not in others if own is None else child.pid in own:
                child.kill()


#: Width and height of the smallest image that a context must have room for.
_ICON = 32, 32


def _refuse_small_context(small: VllmConfig) -> None:
    """A guide that can never take an image would be started for nothing."""
    model = small.model_config
    least = family_of(model).layout_of(model)(*_ICON).visual_tokens
    if least + 2 > model.max_model_len:
        raise ValueError(
            f"--sgl-small {model.model}: its context of {model.max_model_len} tokens has no room for an "
            f"image, whose visual tokens are {least} or more: give a larger max_model_len in "
            "--sgl-small-args, or another model"
        )


def start_guide(engines: SmallEngines, config: SGLConfig, patient: bool) -> Revived[LocalGuide]:
    """Start the small engine; blocks until its model is loaded.

    Args:
        patient: a slow pass is waited for, as :class:`vllm_sgl.guide.local.passes.Passes` does.

    Raises:
        StartRefused: where the engine's processes do not start.
    """

    def make() -> LocalGuide:
        with starting_small(config.small):
            return LocalGuide(engines.start(), config.guide_timeout, patient)

    return Revived(make(), make, engines.give_up)


@contextmanager
def refusing() -> Iterator[None]:
    """Turn an error about the settings or the pair into :class:`StartRefused`, with the same text."""
    try:
        yield
    except ValueError as error:
        raise StartRefused(str(error)) from error


@contextmanager
def starting_small(model: str) -> Iterator[None]:
    """The small engine's processes start inside the block."""
    remedy = "give another --sgl-small or --sgl-small-args, or serve without SGL"
    with _starting(f"small engine (--sgl-small {model})", "SmallEngineCore", remedy):
        yield


@contextmanager
def starting_large(model: str) -> Iterator[None]:
    """The large engine's processes start inside the block."""
    remedy = "this is not caused by SGL, unless the engine ran out of memory"
    with _starting(f"large engine ({model})", "EngineCore", remedy):
        yield


@contextmanager
def preparing_guide(model: str) -> Iterator[None]:
    """Both engines run, and the small one gets ready for its first request inside the block."""
    try:
        yield
    except EngineDeadError as error:  # the small engine's death is a failure of the guide
        raise StartRefused(
            "the large engine died before the first request. The reason is in the lines above that begin "
            "with (EngineCore pid=...), or it ran out of memory"
        ) from error
    except Exception as error:  # a call of an engine's method fails with no class of its own
        raise StartRefused(
            f"the small engine (--sgl-small {model}) started, but cannot guide: "
            f"{str(error).removeprefix(_CALL_FAILED) or type(error).__name__}. What its process has logged "
            "of it begins with (SmallEngineCore pid=...): give another --sgl-small or --sgl-small-args, or "
            "serve without SGL"
        ) from error


#: vLLM's words before those of a worker.
_CALL_FAILED = "Call to collective_rpc method failed: "


@contextmanager
def _starting(engine: str, process: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # vLLM's word for a core process that ended; that one has logged why
        raise StartRefused(
            f"the {engine} did not start ({error}). The reason is in the lines above that begin with "
            f"({process} pid=...): {remedy}"
        ) from error
