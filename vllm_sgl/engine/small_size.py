"""How large the small engine is made where the user did not say: its context, and how many requests it takes
at once. Both follow from the KV cache that it gets; those of the large engine may be far more than it holds.
"""

import logging

from vllm.config import VllmConfig

from vllm_sgl.config import SGLConfig
from vllm_sgl.engine.memory import GIB, Plan, needs_of, room_for_small, size
from vllm_sgl.engine.memory_apart import are_apart, room_alone
from vllm_sgl.host.start import device as host
from vllm_sgl.host.start.kv_need import longest_sequence

logger = logging.getLogger("vllm.vllm_sgl.memory")

#: A context below this is not worth having: rather say that memory is short.
LEAST_CONTEXT = 2048
#: Tokens of a short request about an image: more of them than the KV cache holds cannot run at once.
SHORT_REQUEST = 512
#: The fewest requests that may run at once, whatever the cache holds.
LEAST_SEQUENCES = 16
#: The most host memory that each of the small engine's workers may pin for position ids.
PINNED_MOST = GIB


def fitting_context(large: VllmConfig, small: VllmConfig, config: SGLConfig) -> int | None:
    """Tokens of the longest sequence that the small engine's KV cache has room for, where its config asks for
    a longer one of its own accord; else None."""
    model = small.model_config
    if "max_model_len" in config.small_args:
        return None
    device, utilization = host.device(), large.cache_config.gpu_memory_utilization
    small_needs, large_needs = needs_of(large, small, config, device)
    if are_apart(large, small):
        room = room_alone(large, small, config)
    else:
        room = room_for_small(device, utilization, small_needs, large_needs, config.small_memory)
    if small_needs.sequence <= room:
        return None
    fitting = longest_sequence(small, room)
    if fitting < min(LEAST_CONTEXT, model.max_model_len):
        return None
    logger.info(
        "SGL: the small engine's context is %d tokens, not the %d that both models could have: the KV cache "
        "of one sequence of that length takes %s, and it may have %s. Longer requests are not guided. "
        "--sgl-small-args '{\"max_model_len\": ...}' sets another",
        fitting, model.max_model_len, size(small_needs.sequence), size(room),
    )  # fmt: skip
    return fitting


def fit_sequences(small: VllmConfig, config: SGLConfig, plan: Plan, sequence: int) -> None:
    """Lower ``max_num_seqs`` to what the KV cache can run at once, and so that position ids of as many
    sequences of full length pin at most :data:`PINNED_MOST` of host memory; not where the user set it.

    Args:
        sequence: bytes of the KV cache of one sequence of full length.
    """
    scheduler, model = small.scheduler_config, small.model_config
    if "max_num_seqs" in config.small_args:
        return
    held = plan.small_kv * model.max_model_len // sequence
    most = held // min(SHORT_REQUEST, model.max_model_len)
    if each := host.pinned_bytes(small) // scheduler.max_num_seqs:
        most = min(most, PINNED_MOST // each)
    most = max(LEAST_SEQUENCES, most)
    if most < scheduler.max_num_seqs:
        logger.info(
            "SGL: the small engine takes %d requests at once, not %d: its KV cache holds %d tokens. "
            "--sgl-small-args '{\"max_num_seqs\": ...}' sets another number",
            most, scheduler.max_num_seqs, held,
        )  # fmt: skip
        scheduler.max_num_seqs = most


def check_pinned(small: VllmConfig, large: VllmConfig) -> None:
    """Say how much host memory position ids pin, which vLLM takes without a word.

    Raises:
        ValueError: where it is more than the host has free.
    """
    workers = {"small": small, "large": large}
    found = {name: host.pinned_bytes(config) for name, config in workers.items()}
    if not any(found.values()):
        return
    total = sum(found[name] * config.parallel_config.world_size for name, config in workers.items())
    each = ((name, size(count)) for name, count in found.items() if count)
    said = ", ".join(f"{count} in each worker of the {name} engine" for name, count in each)
    what = (
        f"pinned host memory for position ids (3 rows x max_num_seqs x max_model_len x 4 bytes): {said}, "
        f"{size(total)} in all. --max-num-seqs and --max-model-len make it smaller"
    )
    free = host.host_memory()
    if total > free:
        raise ValueError(f"not enough host memory: {size(free)} free; {what}")
    logger.info("SGL memory: %s", what)
