"""The model runner's batch: which request owns which rows of the forward pass that is running now.

vLLM 0.32 has two runners. V1 (CPU, and GPU with ``VLLM_USE_V2_MODEL_RUNNER=0``) keeps its requests and its
batch in attributes; V2 (GPU with Triton) hands both to its ``ModelState``. Neither puts request ids into
attention metadata. All numbers here are read on the host: nothing waits for the device.
"""

from functools import wraps
from typing import Any, NamedTuple, Protocol

from vllm.multimodal.inputs import PlaceholderRange
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from vllm_sgl.host.patch import check_signature

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = (
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner.requests.sampling_params.extra_args",
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner.requests.mm_features.mm_position",
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner.input_batch.req_ids",
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner.input_batch.num_computed_tokens_cpu",
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner.query_start_loc.np",
    "vllm.v1.worker.gpu.model_runner:GPUModelRunner.model_state",
    "vllm.v1.worker.gpu.model_states.interface:ModelState.add_request(req_index, new_req_data)",
    "vllm.v1.worker.gpu.model_states.interface:ModelState.remove_request(req_id)",
    "vllm.v1.worker.gpu.model_states.interface:ModelState.prepare_attn(input_batch)",
    "vllm.v1.worker.gpu.input_batch:InputBatch.num_reqs",
    "vllm.v1.worker.gpu.input_batch:InputBatch.req_ids",
    "vllm.v1.worker.gpu.input_batch:InputBatch.num_scheduled_tokens",
    "vllm.v1.worker.gpu.input_batch:InputBatch.seq_lens_cpu_upper_bound",
    "vllm.v1.core.sched.output:NewRequestData.req_id",
    "vllm.v1.core.sched.output:NewRequestData.sampling_params",
    "vllm.v1.core.sched.output:NewRequestData.mm_features",
)


class Owner(NamedTuple):
    """A request of the batch: the client's ``extra_args``, and where its images are in the prompt."""

    extra_args: dict[str, Any]
    placeholders: list[PlaceholderRange]


class Batch(NamedTuple):
    """owners, in the order of the query rows; query_lens: rows of each; seq_lens: keys of each, the rows
    of this pass included."""

    owners: list[Owner]
    query_lens: list[int]
    seq_lens: list[int]


class BatchView(Protocol):
    def batch(self) -> Batch:
        """The pass that is running now."""
        ...


def batch_view(runner: Any) -> BatchView:
    """The view for a worker's model runner.

    Raises:
        NotImplementedError: for a runner of another kind.
    """
    if isinstance(runner, GPUModelRunner):
        return RunnerV1(runner)
    if hasattr(runner, "model_state"):
        return RunnerV2(runner)
    raise NotImplementedError(
        f"the guide knows vLLM's model runners V1 and V2; this worker has {type(runner).__module__}: adapt "
        "vllm_sgl/host/worker/runner.py"
    )


class RunnerV1:
    """Reads ``requests``, ``input_batch`` and ``query_start_loc`` of the runner."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    def batch(self) -> Batch:
        runner = self._runner
        ids = runner.input_batch.req_ids
        starts = runner.query_start_loc.np[: len(ids) + 1]
        queries = (starts[1:] - starts[:-1]).tolist()
        computed = runner.input_batch.num_computed_tokens_cpu[: len(ids)].tolist()
        owners = [_owner(runner.requests[req_id]) for req_id in ids]
        return Batch(owners, queries, [a + b for a, b in zip(computed, queries, strict=True)])


class RunnerV2:
    """Listens to the runner's ``ModelState``: requests come and go there, and each pass is announced."""

    def __init__(self, runner: Any) -> None:
        state = runner.model_state
        self._owners: dict[str, Owner] = {}
        self._now: Any = None
        for name in ("add_request", "remove_request", "prepare_attn"):
            check_signature(state, name, (), "vllm_sgl/host/worker/runner.py")
        self._before(state, "add_request", self._add)
        self._before(state, "remove_request", self._remove)
        self._before(state, "prepare_attn", self._announce)

    def batch(self) -> Batch:
        now = self._now
        queries = now.num_scheduled_tokens[: now.num_reqs].tolist()
        # An upper bound only under async scheduling, which the small engine has off.
        lengths = now.seq_lens_cpu_upper_bound[: now.num_reqs].tolist()
        return Batch([self._owners[req_id] for req_id in now.req_ids], queries, lengths)

    def _add(self, req_index: int, new_request: Any) -> None:
        self._owners[new_request.req_id] = _owner(new_request)

    def _remove(self, req_id: str) -> None:
        self._owners.pop(req_id, None)

    def _announce(self, input_batch: Any, *args: Any, **kwargs: Any) -> None:
        self._now = input_batch

    @staticmethod
    def _before(state: Any, name: str, first: Any) -> None:
        """Call ``first`` before a method of this one instance."""
        method = getattr(state, name)

        @wraps(method)
        def both(*args: Any, **kwargs: Any) -> Any:
            first(*args, **kwargs)
            return method(*args, **kwargs)

        setattr(state, name, both)


def _owner(request: Any) -> Owner:
    params = request.sampling_params
    return Owner((params and params.extra_args) or {}, [f.mm_position for f in request.mm_features])
