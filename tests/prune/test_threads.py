"""What the server's process computes, it computes on one thread; OpenMP's would spin on cores that engines
need."""

import pytest
import torch

from tests.support.prompts import make_prompt
from vllm_sgl.core import Seen, VisualItem
from vllm_sgl.prune import rewrite
from vllm_sgl.prune.minimum import AtLeast
from vllm_sgl.prune.rewrite import prune_prompt
from vllm_sgl.prune.threads import one_thread


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    # An engine that ran in this process has put a function there that does nothing: vLLM's CPU worker.
    monkeypatch.setattr(torch, "set_num_threads", torch._C.set_num_threads)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2  # put back, whatever happened
    torch.set_num_threads(before)


def test_any_policy_selects_on_one_thread():
    threads = []

    class Counting:
        def select(self, seen, retention):
            threads.append(torch.get_num_threads())
            return [torch.arange(1)]

    AtLeast(Counting()).select([Seen(VisualItem("image", 4), torch.ones(4))], 0.25)
    assert threads == [1]


def test_prompts_are_rewritten_on_one_thread(monkeypatch):
    threads = []
    stays_of = rewrite.stays_of

    def counting(*arguments):
        threads.append(torch.get_num_threads())
        return stays_of(*arguments)

    monkeypatch.setattr(rewrite, "stays_of", counting)
    prune_prompt(make_prompt(), [torch.tensor([0]), torch.tensor([1])])
    assert threads == [1, 1]


def test_an_error_leaves_threads_as_they_were():
    with pytest.raises(ZeroDivisionError), one_thread():
        raise ZeroDivisionError
