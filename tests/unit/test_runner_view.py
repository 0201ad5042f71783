"""The two model runners' batches through one view. V2 does not run on a CPU: its ``ModelState`` is a fake."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.multimodal.inputs import PlaceholderRange
from vllm.v1.worker.gpu.model_states.interface import ModelState
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from vllm_sgl.host.worker.runner import RunnerV1, RunnerV2, batch_view

PLACE = PlaceholderRange(offset=3, length=4)


def request(req_id: str, **extra_args: object) -> SimpleNamespace:
    return SimpleNamespace(
        req_id=req_id,
        sampling_params=SamplingParams(extra_args=extra_args or None),
        mm_features=[SimpleNamespace(mm_position=PLACE)],
    )


class FakeState:
    """The methods of vLLM's ``ModelState`` that the view listens to, with its signatures."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def add_request(self, req_index, new_req_data):
        self.calls.append("add")

    def remove_request(self, req_id):
        self.calls.append("remove")

    def prepare_attn(self, input_batch, *args, **kwargs):
        self.calls.append("attn")
        return {"layer": "metadata"}


def input_batch(req_ids: list[str], queries: list[int], lengths: list[int]) -> SimpleNamespace:
    padded = [0, 0]  # V2 pads its arrays to the size of a captured graph
    return SimpleNamespace(
        req_ids=req_ids,
        num_reqs=len(req_ids),
        num_scheduled_tokens=np.array(queries + padded),
        seq_lens_cpu_upper_bound=torch.tensor(lengths + padded),
    )


def test_v2_batch_names_owners_in_row_order():
    runner = SimpleNamespace(model_state=FakeState())
    view = batch_view(runner)
    assert isinstance(view, RunnerV2)
    runner.model_state.add_request(0, request("a", mark=1))
    runner.model_state.add_request(1, request("b"))
    result = runner.model_state.prepare_attn(input_batch(["b", "a"], [5, 1], [5, 9]), "piecewise")
    batch = view.batch()
    assert result == {"layer": "metadata"}
    assert runner.model_state.calls == ["add", "add", "attn"]
    assert [owner.extra_args for owner in batch.owners] == [{}, {"mark": 1}]
    assert batch.owners[0].placeholders == [PLACE]
    assert (batch.query_lens, batch.seq_lens) == ([5, 1], [5, 9])


def test_v2_forgets_removed_requests_and_takes_them_back_after_a_preemption():
    runner = SimpleNamespace(model_state=FakeState())
    view = batch_view(runner)
    runner.model_state.add_request(0, request("a", mark=1))
    runner.model_state.remove_request("a")
    runner.model_state.prepare_attn(input_batch(["a"], [1], [1]))
    with pytest.raises(KeyError):
        view.batch()
    runner.model_state.add_request(0, request("a", mark=2))
    assert view.batch().owners[0].extra_args == {"mark": 2}


def test_v2_listens_to_methods_that_this_vllm_has():
    for name in ("add_request", "remove_request", "prepare_attn"):
        assert callable(getattr(ModelState, name))
    with pytest.raises(RuntimeError, match=r"add_request is missing in this vLLM.*host/worker/runner\.py"):
        RunnerV2(SimpleNamespace(model_state=SimpleNamespace()))


def test_v1_batch_reads_host_side_lengths():
    runner = object.__new__(GPUModelRunner)
    runner.requests = {"a": request("a", mark=1), "b": request("b")}
    runner.input_batch = SimpleNamespace(req_ids=["b", "a"], num_computed_tokens_cpu=np.array([10, 0, 77]))
    runner.query_start_loc = SimpleNamespace(np=np.array([0, 1, 8, 8, 8]))
    view = batch_view(runner)
    batch = view.batch()
    assert isinstance(view, RunnerV1)
    assert (batch.query_lens, batch.seq_lens) == ([1, 7], [11, 7])
    assert [owner.extra_args for owner in batch.owners] == [{}, {"mark": 1}]


def test_an_unknown_runner_is_refused():
    with pytest.raises(NotImplementedError, match=r"V1 and V2.*host/worker/runner\.py"):
        batch_view(SimpleNamespace())
