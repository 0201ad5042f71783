"""The schedulers of a large engine, which know what a pruned image costs to encode."""

from vllm.config import VllmConfig
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from vllm_sgl.host.worker import encoder_budget
from vllm_sgl.visual.fields import ROWS


class SGLScheduler(encoder_budget.ChargesEncoding, Scheduler):
    rows_field = ROWS


class SGLAsyncScheduler(encoder_budget.ChargesEncoding, AsyncScheduler):
    rows_field = ROWS


def charge_what_is_encoded(config: VllmConfig) -> None:
    """Make a step encode as much of pruned images as of whole ones, and not as many images as their kept
    tokens would fill; nothing where the user chose a scheduler."""
    encoder_budget.charge(config, {Scheduler: SGLScheduler, AsyncScheduler: SGLAsyncScheduler})
