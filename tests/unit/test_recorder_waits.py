"""Where the recorder's host would wait for a GPU, and does not; without one."""

from unittest.mock import Mock

import pytest
import torch

from vllm_sgl.guide.local import recorder
from vllm_sgl.guide.local.recorder import Recorder

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("values", [[1, 2], torch.tensor([1, 2])], ids=["list", "tensor"])
def test_numbers_go_to_a_gpu_through_pinned_memory(values, monkeypatch):
    """Out of pageable memory a copy makes the host wait, inside the first layer of every request's pass."""
    pinned = Mock()
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned)
    assert recorder._to_device(values, GPU) is pinned.to.return_value
    pinned.to.assert_called_once_with(GPU, non_blocking=True)
    assert recorder._to_device(values, CPU).tolist() == [1, 2]
    pinned.to.assert_called_once()


def test_requests_that_are_taken_together_cost_one_copy(monkeypatch):
    taken = Recorder()
    for number, key in enumerate("abc", 1):
        entry = taken.track(key, lambda: torch.arange(3), range(3, 6), CPU)
        entry.mass += number
        entry.total += number
    copies = []
    copy = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: copies.append(tensor) or copy(tensor))
    one, two, unknown, three = taken.take(["a", "b", "?", "c"])
    assert len(copies) == 1
    assert unknown is None
    assert [found.mass.tolist() for found in (one, two, three)] == [[1.0] * 3, [2.0] * 3, [3.0] * 3]
    assert [found.total for found in (one, two, three)] == [1, 2, 3]
