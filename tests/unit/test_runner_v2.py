"""Runner V2's own classes, which a GPU has and a CPU can make: its batch through our view, and what it stages
of a pruned prompt's positions. Its Triton kernels do not run here."""

from types import SimpleNamespace

import pytest
import torch
from vllm import SamplingParams
from vllm.config.compilation import CUDAGraphMode
from vllm.multimodal.inputs import MultiModalFeatureSpec
from vllm.v1.core.sched.output import NewRequestData
from vllm.v1.worker.gpu import buffer_utils
from vllm.v1.worker.gpu.input_batch import InputBatch, InputBuffers
from vllm.v1.worker.gpu.mm.rope import RopeState
from vllm.v1.worker.gpu.model_states.default import DefaultModelState

from tests.support.prompts import make_prompt
from vllm_sgl.families.internvl import SGLInternVLChatModel
from vllm_sgl.host.worker.runner import RunnerV2, batch_view
from vllm_sgl.prune.rewrite import prune_prompt

CPU = torch.device("cpu")
#: Kept visual tokens of the two images of the prompt; what they leave out is 3 and 2 tokens.
KEPT = [torch.tensor([0, 3]), torch.tensor([2])]
DROPPED = 5
#: Where the tokens that are left were in the whole prompt.
ORIGINAL = [0, 1, 2, 3, 6, 8, 9, 12, 13, 14]


@pytest.fixture
def state(monkeypatch):
    """vLLM's model state, around our model; all but its encoder."""
    monkeypatch.setattr(buffer_utils, "is_uva_available", lambda: False)
    model = SGLInternVLChatModel.__new__(SGLInternVLChatModel)
    torch.nn.Module.__init__(model)
    model._own_positions, model.config = False, SimpleNamespace()
    state = DefaultModelState.__new__(DefaultModelState)
    state.model, state.model_config = model, SimpleNamespace(max_model_len=64)
    state.supports_mm_inputs, state.prompt_embeds_state = False, None
    state.rope_state = RopeState(3, 4, 32, 64, CPU)
    return state


def request(req_id, prompt=None, generated=(), **extra_args):
    """As the scheduler hands it to the runner. generated: tokens that were there before a preemption."""
    prompt = prompt or {"prompt_token_ids": [7, 8, 9], "mm_kwargs": {}, "mm_placeholders": {}}
    features = [
        MultiModalFeatureSpec(data=item, modality=modality, identifier="", mm_position=place)
        for modality, items in prompt["mm_kwargs"].items()
        for item, place in zip(items, prompt["mm_placeholders"][modality], strict=True)
    ]
    ids = prompt["prompt_token_ids"]
    return NewRequestData(
        req_id=req_id, prompt_token_ids=ids, mm_features=features, pooling_params=None, block_ids=([1],),
        sampling_params=SamplingParams(extra_args=extra_args or None), num_computed_tokens=0,
        lora_request=None, prefill_token_ids=[*ids, *generated],
    )  # fmt: skip


def pass_of(state, tokens):
    """A forward pass of two requests, announced as the runner does; the batch that it is about."""
    batch = InputBatch.make_dummy(2, tokens, InputBuffers(4, 32, CPU))
    batch.req_ids[:] = ["b", "a"]
    batch.seq_lens_cpu_upper_bound += 3
    groups = SimpleNamespace(kv_cache_groups=[])
    state.prepare_attn(batch, CUDAGraphMode.PIECEWISE, (), torch.empty(0), [], groups)
    return batch


def test_the_batch_is_read_from_what_the_runner_hands_over(state):
    view = batch_view(SimpleNamespace(model_state=state))
    assert isinstance(view, RunnerV2)
    state.add_request(0, request("a", prune_prompt(make_prompt(), KEPT), mark=1))
    state.add_request(1, request("b"))
    pass_of(state, 7)
    owners, queries, lengths = view.batch()
    assert [owner.extra_args for owner in owners] == [{}, {"mark": 1}]
    assert [(place.offset, place.length) for place in owners[1].placeholders] == [(2, 4), (7, 1)]
    assert (queries, lengths) == ([3, 4], [6, 7])
    state.remove_request("a")  # preempted
    state.add_request(2, request("a", mark=2))
    pass_of(state, 2)
    assert view.batch().owners[1].extra_args == {"mark": 2}


@pytest.mark.parametrize("generated", [(), (5, 6, 7)], ids=["new", "resumed"])
def test_kept_tokens_are_staged_at_their_own_positions(state, generated):
    """What is computed again after a preemption goes on behind them."""
    state.add_request(1, request("a", prune_prompt(make_prompt(), KEPT), generated))
    staged = state.rope_state.prefill_positions
    expected = ORIGINAL + [15 + number for number in range(len(generated))]
    assert staged._staged_write_indices == [3, 4, 5]
    assert staged._staged_write_contents == 3 * expected
    assert state.rope_state.prefill_delta.np.tolist() == [0, DROPPED, 0, 0]
