"""vLLM's scheduler: a prefix-cache hit ends before the first query row that counts.

Symptom without it: a request whose prompt is known finds all of it in the prefix cache, and what listens to
the model's attention never sees the rows that it counts. ``SamplingParams.skip_reading_prefix_cache`` is all
or nothing, and vLLM has no hook for how much of a hit a request may use. Remove when it has one.
"""

from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = (
    "vllm.v1.core.sched.scheduler:Scheduler._get_local_prefix_cache_hit(request)",
    "vllm.v1.core.sched.scheduler:Scheduler._free_request_blocks(request)",
    "vllm.v1.core.sched.scheduler:Scheduler.block_size",
    "vllm.v1.core.kv_cache_manager:KVCacheManager.truncate_computed_blocks(blocks, num_computed_tokens)",
    "vllm.v1.core.kv_cache_manager:KVCacheManager.get_block_ids(request_id)",
    "vllm.v1.core.kv_cache_manager:KVCacheManager.evict_blocks(block_ids)",
    "vllm.v1.request:Request.sampling_params",
    "vllm.config:SchedulerConfig.scheduler_cls",
)

#: What ``_get_local_prefix_cache_hit`` returns: blocks, tokens in them, where a shared prefix ends, and
#: whether groups of the cache differ.
Hit = tuple[Any, int, int, bool]


class CappingScheduler(Scheduler):
    """For models of full attention in every layer; subclasses say what a request must compute.

    Requests without such a row leave nothing in the cache: their prompts are made up, and would take the
    place of others that come again.
    """

    @staticmethod
    def first_row(extra_args: dict[str, Any]) -> int | None:
        """The first prompt position that a request must compute itself; None where it has none.

        extra_args: of its sampling parameters.
        """
        raise NotImplementedError

    def _get_local_prefix_cache_hit(self, request: Request) -> Hit:
        found = super()._get_local_prefix_cache_hit(request)
        blocks, hit, boundary, differ = found
        first = self._first_row(request)
        if first is None or hit <= first:
            return found
        most = first // self.block_size * self.block_size
        cut = self.kv_cache_manager.truncate_computed_blocks(blocks, most)
        return cut, most, boundary, differ

    def _free_request_blocks(self, request: Request) -> None:
        if self._first_row(request) is None:
            groups = self.kv_cache_manager.get_block_ids(request.request_id)
            self.kv_cache_manager.evict_blocks({block for group in groups for block in group})
        super()._free_request_blocks(request)

    def _first_row(self, request: Request) -> int | None:
        params = request.sampling_params
        return self.first_row((params and params.extra_args) or {})
