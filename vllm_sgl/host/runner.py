"""The model runner's batch: which request owns which rows of the forward pass that is running now."""

from typing import Any, NamedTuple

from vllm.multimodal.inputs import PlaceholderRange
from vllm.v1.worker.gpu_model_runner import GPUModelRunner


class BatchRow(NamedTuple):
    """One request of the running batch. extra_args and placeholders are the client's, as it sent them."""

    extra_args: dict[str, Any]
    placeholders: list[PlaceholderRange]


class RunnerV1:
    """Reads vLLM's V1 model runner (GPU and CPU)."""

    def __init__(self, runner: Any) -> None:
        if not isinstance(runner, GPUModelRunner):
            raise NotImplementedError(
                f"the guide reads vLLM's V1 model runner; this worker has {type(runner).__module__}: "
                "set VLLM_USE_V2_MODEL_RUNNER=0"
            )
        self._runner = runner

    def rows(self) -> list[BatchRow]:
        """The requests of the running batch, in the order of its query rows."""
        runner = self._runner
        requests = (runner.requests[req_id] for req_id in runner.input_batch.req_ids)
        return [
            BatchRow(
                (r.sampling_params and r.sampling_params.extra_args) or {},
                [f.mm_position for f in r.mm_features],
            )
            for r in requests
        ]
