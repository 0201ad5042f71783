"""What a variant does while vLLM builds it, over a made-up model."""

from types import SimpleNamespace

import pytest
import torch
from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange

from vllm_sgl.model import pruned
from vllm_sgl.model.pruned import Pruned
from vllm_sgl.visual.fields import LENGTH, PLACES


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
    monkeypatch.setattr(pruned.weights, "watch", lambda config: None)
    return found


class Placing(Model):
    """A model with positions of its own, which tells markers from visual tokens by placeholder masks, as
    GLM-4V tells the frames of a video."""

    config = SimpleNamespace(video_token_id=9)
    asked = None

    def get_mrope_input_positions(self, input_tokens, mm_features):
        self.asked = (
            input_tokens,
            [(f.mm_position.offset, f.mm_position.length, f.mm_position.is_embed) for f in mm_features],
        )
        return torch.arange(len(input_tokens)).expand(3, -1), 0


class SGLPlacing(Pruned, Placing):
    pass


def feature(offset, is_embed, places=None, length=None):
    """A video's placeholder; places: where its positions were in one of `length`, where it is pruned."""
    data = {} if places is None else {PLACES: torch.tensor(places), LENGTH: torch.tensor(length)}
    return MultiModalFeatureSpec(
        {name: SimpleNamespace(data=value) for name, value in data.items()},
        "video", "video", PlaceholderRange(offset, len(is_embed), torch.tensor(is_embed)),
    )  # fmt: skip


def test_markers_of_the_whole_prompt_stay_markers(compiled):
    """Two frames of two tokens, a marker before and behind each: of the first frame the second token is left,
    of the second frame none. What was dropped are visual tokens. A second video is whole."""
    model = SGLPlacing(vllm_config=config())
    pruned_video = feature(1, [False, True, False, False, False], places=[0, 2, 3, 4, 7], length=8)
    whole_video = feature(7, [False, True, False])
    tokens = [1, 5, 9, 6, 5, 6, 2, 5, 9, 6, 3]
    positions, delta = model.get_mrope_input_positions(tokens, [pruned_video, whole_video])
    ids, ranges = model.asked
    assert ids == [1, 5, 9, 9, 6, 5, 9, 9, 6, 2, 5, 9, 6, 3]
    masks = [(offset, length, mask.tolist()) for offset, length, mask in ranges]
    frame = [False, True, True, False]
    assert masks == [(1, 8, frame + frame), (10, 3, [False, True, False])]
    assert positions[0].tolist() == [0, 1, 3, 4, 5, 8, 9, 10, 11, 12, 13]
    assert delta == len(ids) - len(tokens)


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
    with pytest.raises(RuntimeError, match=r"bypass pruning: adapt vllm_sgl/host/start/encoder\.py"):
        SGLModel(vllm_config=config(encoder_graphs=True))
