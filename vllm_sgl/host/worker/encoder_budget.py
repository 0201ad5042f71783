"""vLLM's scheduler: an image is charged by what is encoded for it, not by what is left of it in the prompt.

Symptom without it: the budget of a step's vision encoder counts the tokens that images take in their prompts.
A pruned image takes few of them and still needs most of its tiles, so a step begins many more images than
plain vLLM's would, and none of them has its first token before all are encoded. vLLM has a place for a
scheduler class, and no hook inside it for what an item costs. Remove when it has one.
"""

from collections.abc import Mapping
from typing import Any

from vllm.config import VllmConfig
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = (
    "vllm.v1.core.sched.scheduler:Scheduler._try_schedule_encoder_inputs"
    "(request, num_computed_tokens, num_new_tokens, encoder_compute_budget, shift_computed_tokens)",
    "vllm.v1.core.sched.scheduler:Scheduler.max_num_encoder_input_tokens",
    "vllm.v1.request:Request.mm_features.data",
    "vllm.v1.request:Request.mm_features.mm_position",
    "vllm.config:SchedulerConfig.scheduler_cls",
    "vllm.config:SchedulerConfig.async_scheduling",
)

#: What ``_try_schedule_encoder_inputs`` returns: items to encode, prompt tokens to compute, what is left of
#: the encoder's budget, items that come from elsewhere, items that the step encodes already.
Scheduled = tuple[list[int], int, int, list[int], list[int]]


class ChargesEncoding:
    """Mixin, first in the bases of a scheduler.

    rows_field: an item's field with the visual tokens of what is encoded for it; items without that are
        charged as vLLM does.
    """

    rows_field: str

    def _try_schedule_encoder_inputs(
        self,
        request: Request,
        num_computed_tokens: int,
        num_new_tokens: int,
        encoder_compute_budget: int,
        shift_computed_tokens: int = 0,
    ) -> Scheduled:
        """As vLLM's, but a prompt ends, for this step, before the first item that is too much for it. An item
        that has the whole budget to itself always fits."""

        found: Scheduled = super()._try_schedule_encoder_inputs(  # type: ignore[misc]
            request, num_computed_tokens, num_new_tokens, encoder_compute_budget, shift_computed_tokens
        )
        items, tokens, _, elsewhere, twice = found
        features, most = request.mm_features, self.max_num_encoder_input_tokens  # type: ignore[attr-defined]
        charged = 0
        for number in items:
            charged += self._encoded(features[number])
            alone = number == items[0] and encoder_compute_budget == most
            if charged > encoder_compute_budget and not alone:
                fewer = features[number].mm_position.offset - num_computed_tokens - shift_computed_tokens
                if fewer <= 0:
                    return [], 0, encoder_compute_budget, [], []
                return self._try_schedule_encoder_inputs(
                    request, num_computed_tokens, fewer, encoder_compute_budget, shift_computed_tokens
                )
        return items, tokens, max(0, encoder_compute_budget - charged), elsewhere, twice

    def _encoded(self, item: Any) -> int:
        """Visual tokens that an item costs to encode: never fewer than are left in the prompt."""
        rows = None if item.data is None else item.data.get(self.rows_field)
        left: int = item.mm_position.get_num_embeds()
        return left if rows is None else max(left, int(rows.data))


def charge(config: VllmConfig, of: Mapping[type[Scheduler], type[ChargesEncoding]]) -> None:
    """Give an engine the scheduler that charges what is encoded; a user's own stays.

    Args:
        of: vLLM's schedulers, and ours in their places.
    """
    scheduler = config.scheduler_config
    if scheduler.scheduler_cls is None:
        scheduler.scheduler_cls = of[scheduler.get_scheduler_cls()]
