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
    """Make the scheduler budget images by their encoded tokens, not by their kept ones; a scheduler that the
    user chose stays."""
    encoder_budget.charge(config, {Scheduler: SGLScheduler, AsyncScheduler: SGLAsyncScheduler})
