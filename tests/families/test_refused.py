"""What Qwen-VL models cannot do with SGL is refused before anything starts, with what to do instead."""

import pytest
from vllm import EngineArgs

from tools.tiny_families import FAMILIES, LARGE, SMALL, build, build_pair
from vllm_sgl.config import SGLConfig
from vllm_sgl.engine.carried import use_sgl
from vllm_sgl.engine.client import SGLAsyncLLM
from vllm_sgl.engine.start import small_config
from vllm_sgl.guide.local.scheduler import reads_cache


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return build_pair(FAMILIES["qwen2_5_vl"], tmp_path_factory.mktemp("qwen"), SMALL, LARGE)


def large_config(pair, sgl=None, **arguments):
    config = SGLConfig.parse({"small": str(pair[0]), **(sgl or {})})
    engine_args = EngineArgs(str(pair[1]), dtype="float32", max_model_len=640, **arguments)
    use_sgl(engine_args, config)
    return engine_args.create_engine_config()


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_packed_positions_of_a_model_with_mrope(name, tmp_path):
    path = build(FAMILIES[name], SMALL, tmp_path)
    with pytest.raises(ValueError, match=r"by row and column \(M-RoPE\).* positions='packed': leave it at"):
        large_config((path, path), {"positions": "packed"})


def test_pruning_of_vllms_own(pair):
    config = large_config(pair, video_pruning_rate=0.5)
    with pytest.raises(ValueError, match=r"--video-pruning-rate; received 0.5: .*Drop the flag"):
        SGLAsyncLLM(config, None, False)


def test_pruning_of_vllms_own_in_the_small_engine(pair):
    config = SGLConfig.parse({"small": str(pair[0]), "small_args": {"video_pruning_rate": 0.5}})
    with pytest.raises(ValueError, match=r"video_pruning_rate is set by the guide .* received 0.5: drop it"):
        small_config(large_config(pair), config)


def test_a_hybrid_decoder(pair, tmp_path):
    """Qwen3.5 as the guide: its prefix cache is off, because a state is kept at the end of a hit alone; its
    recurrent state has the dtype that its config asks for."""
    small = build(FAMILIES["qwen3_5"], SMALL, tmp_path)
    config = small_config(large_config(pair), SGLConfig.parse({"small": str(small)}))
    assert config.model_config.is_hybrid
    assert not config.cache_config.enable_prefix_caching
    assert not reads_cache(config)
    assert config.cache_config.mamba_ssm_cache_dtype == "float32"
