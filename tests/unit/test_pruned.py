"""What a variant does while vLLM builds it, over a made-up model."""

from types import SimpleNamespace

import pytest
import torch

from vllm_sgl.model import pruned
from vllm_sgl.model.pruned import Pruned


class Model:
    def __init__(self, *, vllm_config, prefix=""):
        pass


class SGLModel(Pruned, Model):
    pass


@pytest.fixture
def compiled(monkeypatch):
    """What the kernel that gathers features was compiled for."""
    found = []
    monkeypatch.setattr(pruned, "warm_up", lambda *asked: found.append(asked))
    monkeypatch.setattr(pruned.encoder, "feature_cache_bytes", lambda config: 0)
    monkeypatch.setattr(pruned.encoder, "profiled_tokens", lambda config: 512)
    return found


def config(encoder_graphs=False):
    return SimpleNamespace(
        compilation_config=SimpleNamespace(cudagraph_mm_encoder=encoder_graphs),
        model_config=SimpleNamespace(get_inputs_embeds_size=lambda: 48, dtype=torch.bfloat16),
        device_config=SimpleNamespace(device_type="cuda"),
    )


def test_its_kernel_is_compiled_then(compiled):
    """Also where vLLM does not profile (``--skip-mm-profiling``), and no image comes before a client's."""
    SGLModel(vllm_config=config())
    assert compiled == [(48, torch.bfloat16, torch.device("cuda"))]


def test_encoder_graphs_are_refused_if_somebody_turned_them_on_again(compiled):
    with pytest.raises(RuntimeError, match=r"bypass pruning: adapt vllm_sgl/host/start/encoder_graphs\.py"):
        SGLModel(vllm_config=config(encoder_graphs=True))
