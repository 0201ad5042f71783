import pytest
import torch

from vllm_sgl.kernels.gather_visual import gather_visual, warm_up


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kept", [[], [0], [6], [0, 3, 6], [6, 0, 3, 3], list(range(7))], ids=str)
def test_rows_in_order(kept, dtype):
    features = torch.arange(21).view(7, 3).to(dtype)
    rows = gather_visual(features, torch.tensor(kept, dtype=torch.int64))
    assert rows.dtype == dtype
    assert rows.tolist() == [features[i].tolist() for i in kept]
    assert rows.shape == (len(kept), 3)


def test_cast():
    features = torch.tensor([[1.00001, 2.0], [3.0, 1e6]])
    rows = gather_visual(features, torch.tensor([0]), dtype=torch.float16)
    assert rows.dtype == torch.float16
    assert rows.tolist() == [[1.0, 2.0]]


def test_result_is_a_copy():
    features = torch.zeros(4, 2)
    rows = gather_visual(features, torch.arange(4))
    rows += 1
    assert not features.any()


def test_strided_features_and_poisoned_neighbours():
    wide = torch.full((6, 10), float("nan"))
    wide[1:5, 2:6] = torch.arange(16.0).view(4, 4)
    rows = gather_visual(wide[1:5, 2:6], torch.tensor([1, 3]))
    assert rows.tolist() == [[4, 5, 6, 7], [12, 13, 14, 15]]


def test_nothing_to_warm_up_on_a_cpu(monkeypatch):
    monkeypatch.setattr("vllm_sgl.kernels.gather_visual.gather_visual", None)  # a call would fail
    warm_up(8, torch.float32, torch.device("cpu"))


def test_warm_up_while_a_model_is_built(monkeypatch):
    """vLLM makes other devices the default then."""
    asked = []
    monkeypatch.setattr("vllm_sgl.kernels.gather_visual.gather_visual", lambda *args: asked.extend(args))
    with torch.device("meta"):
        warm_up(8, torch.float32, torch.device("meta"))
    features, kept = asked
    assert (features.shape, features.device.type, kept.device.type) == ((1, 8), "meta", "cpu")
