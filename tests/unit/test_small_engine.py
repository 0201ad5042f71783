"""The small engine's configuration: what the user may change, and what vLLM then makes of it."""

import logging
import shutil
from dataclasses import fields
from types import SimpleNamespace

import pytest
from vllm import EngineArgs
from vllm.config import LoadConfig
from vllm.model_executor.models.interfaces import supports_encoder_cudagraph
from vllm.platforms import current_platform
from vllm.v1.core.sched.scheduler import Scheduler

from vllm_sgl.config import SGLConfig
from vllm_sgl.engine.carried import use_sgl
from vllm_sgl.engine.start import small_config
from vllm_sgl.families.internvl import SGLInternVLChatModel
from vllm_sgl.guide.local.scheduler import GuideScheduler, reads_cache
from vllm_sgl.host.start import small_args, small_engine
from vllm_sgl.host.start.small_args import checked, small_arguments
from vllm_sgl.pair.verdict import judge


def configs(pair, small_args=None, **large):
    """(large, small), as a server makes them."""
    config = SGLConfig(small=str(pair[0]), small_args=small_args or {})
    arguments = {"trust_remote_code": True, "dtype": "float32", "max_model_len": 640, **large}
    engine_args = EngineArgs(str(pair[1]), **arguments)
    use_sgl(engine_args, config)
    made = engine_args.create_engine_config()
    return made, small_config(made, config)


@pytest.mark.parametrize("asked", [{}, {"compilation_config": {"cudagraph_mm_encoder": True}}])
def test_encoders_have_no_cuda_graphs(qwen2_pair, asked):
    """vLLM would make them for our class: it asks for a protocol that InternVL has by inheritance."""
    assert supports_encoder_cudagraph(SGLInternVLChatModel.__new__(SGLInternVLChatModel))
    for config in configs(qwen2_pair, small_args=asked, **asked):
        assert config.compilation_config.cudagraph_mm_encoder is False


def test_overrides_of_the_small_config_are_composed(qwen2_pair):
    _, small = configs(qwen2_pair, {"hf_overrides": {"llm_config": {"attention_dropout": 0.25}}})
    assert small.model_config.hf_config.architectures == ["SGLInternVLChatModel"]
    assert small.model_config.hf_config.mrope_section == [0, 0, 0]
    assert small.model_config.hf_text_config.attention_dropout == 0.25


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"worker_extension_cls": "a.B"}, r"worker_extension_cls is set by the guide .*'a\.B': drop it"),
        ({"additional_config": {}}, "additional_config is set by the guide"),
        ({"async_scheduling": True}, "async_scheduling is set by the guide"),
        ({"model": "other"}, "model is set by the guide"),
        ({"pipeline_parallel_size": 2}, "pipeline_parallel_size is set by the guide .it runs in one stage"),
        ({"gpu_memory_utilization": 0.5}, "gpu_memory_utilization is set by the guide .*--sgl-small-memory"),
        ({"kv_cache_dtype": "fp8"}, "expected a kv_cache_dtype of auto or float16 or bfloat16.*'fp8': drop"),
        (
            {"compilation_config": {"cudagraph_mode": "FULL"}},
            "expected a cudagraph_mode of NONE or PIECEWISE",
        ),
    ],
)
def test_what_would_undo_the_guide_is_refused(asked, words):
    with pytest.raises(ValueError, match="--sgl-small-args: " + words):
        checked(asked)


@pytest.mark.parametrize("text", ["{}", "[1, 2]", "7", "no JSON"])
def test_a_config_that_is_none_is_refused(qwen2_pair, tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="no model there") as error:
        configs((tmp_path, qwen2_pair[1]))
    assert str(tmp_path) in str(error.value)


def test_a_model_without_a_tokenizer_is_named(qwen2_pair, tmp_path):
    small = shutil.copytree(qwen2_pair[0], tmp_path / "small")
    for file in small.glob("*token*.json"):
        file.unlink()
    large, made = configs((small, qwen2_pair[1]))
    with pytest.raises(ValueError, match=rf"the small model \(--sgl-small\) {small}: its tokenizer "):
        judge(large.model_config, made.model_config)
    with pytest.raises(ValueError, match=rf"the large model {small}: its tokenizer "):
        judge(made.model_config, large.model_config)


def test_other_arguments_are_the_users(qwen2_pair):
    _, small = configs(qwen2_pair, {"max_model_len": 320, "max_num_seqs": 3})
    assert (small.model_config.max_model_len, small.scheduler_config.max_num_seqs) == (320, 3)


@pytest.mark.parametrize(
    ("asked", "scheduler", "caching"),
    [
        ({}, GuideScheduler, True),
        ({"enable_prefix_caching": False}, GuideScheduler, False),
        ({"scheduler_cls": "vllm.v1.core.sched.scheduler.Scheduler"}, Scheduler, False),
    ],
)
def test_the_prefix_cache_has_a_scheduler_of_ours(qwen2_pair, asked, scheduler, caching):
    """Another one would let hits hide query rows."""
    _, small = configs(qwen2_pair, asked)
    assert small.scheduler_config.get_scheduler_cls() is scheduler
    assert small.cache_config.enable_prefix_caching is caching
    assert reads_cache(small) is caching
    _, small = configs(qwen2_pair, {**asked, "enable_prefix_caching": True, "block_size": 64})
    assert reads_cache(small) is (scheduler is GuideScheduler)
    assert small.cache_config.block_size == 64


def test_how_models_are_found_and_read_is_the_large_engines(qwen2_pair, tmp_path):
    ways = {
        "load_format": "safetensors", "download_dir": str(tmp_path), "ignore_patterns": ["*.bin"],
        "safetensors_load_strategy": "eager", "pt_load_map_location": "cuda:0", "use_tqdm_on_load": False,
        "safetensors_prefetch_num_threads": 3, "safetensors_prefetch_block_size": 1 << 20,
        "model_loader_extra_config": {"enable_multithread_load": True},
    }  # fmt: skip
    _, small = configs(qwen2_pair, **ways, config_format="hf", hf_token="token")
    assert {name: getattr(small.load_config, name) for name in ways} == ways
    assert (small.model_config.config_format, small.model_config.hf_token) == ("hf", "token")
    _, small = configs(qwen2_pair, {"load_format": "auto"}, **ways)
    assert (small.load_config.load_format, small.load_config.model_loader_extra_config) == ("auto", {})


def test_every_way_to_load_is_handed_on_or_belongs_to_the_format():
    theirs = {field.name for field in fields(LoadConfig)} - {"device"}  # the engine's own
    assert theirs == {*small_args._LOADING, "model_loader_extra_config"}


class OnCuda:
    """vLLM's platform, as far as the arguments ask."""

    def __init__(self, family):
        self.family = family

    def is_cpu(self):
        return False

    def is_cuda(self):
        return True

    def is_device_capability_family(self, family):
        return family == self.family

    def has_device_capability(self, capability):
        return self.family >= capability


@pytest.mark.parametrize(
    ("family", "backend"), [(70, "TRITON_ATTN"), (80, None), (90, None), (100, "FLASH_ATTN"), (120, None)]
)
def test_a_backend_that_can_be_read_is_chosen_where_vllm_would_not(qwen2_pair, monkeypatch, family, backend):
    large, _ = configs(qwen2_pair)
    monkeypatch.setattr(small_args, "current_platform", OnCuda(family))
    arguments = small_arguments(large, SGLConfig(small=str(qwen2_pair[0])), 640)
    assert arguments.get("attention_backend") == backend
    assert arguments["compilation_config"] == {"cudagraph_mode": "PIECEWISE"}
    assert current_platform.is_cpu()


@pytest.mark.parametrize(
    ("size", "heads", "groups", "expected"),
    [
        (1, 14, 2, 1),
        (2, 14, 2, 2),
        (4, 14, 2, 2),  # InternVL2-1B
        (8, 14, 2, 2),
        (8, 16, 8, 8),
        (8, 16, 2, 8),  # KV heads are copied
        (6, 12, 4, 2),  # neither 6 nor 3 ranks can share 4 KV heads
        (8, 7, None, 1),
    ],
)
def test_tensor_parallel_size_that_the_heads_allow(size, heads, groups, expected, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    text = SimpleNamespace(num_attention_heads=heads, num_key_value_heads=groups)
    assert small_args.tensor_parallel(size, text) == expected
    said = f"runs with a tensor parallel size of {expected}, not {size}"
    assert (said in caplog.text) is (expected < size)


@pytest.mark.parametrize(("size", "key_heads", "expected"), [(4, 16, 4), (4, 2, 2), (4, 3, 1)])
def test_tensor_parallel_size_that_a_gated_delta_net_allows(size, key_heads, expected):
    text = SimpleNamespace(
        num_attention_heads=8, num_key_value_heads=4, layer_types=["linear_attention", "full_attention"],
        linear_num_key_heads=key_heads, linear_num_value_heads=48,
    )  # fmt: skip
    assert small_args.tensor_parallel(size, text) == expected


def test_a_model_without_attention_cannot_guide():
    model = SimpleNamespace(get_sliding_window=lambda: None, is_attention_free=True)
    with pytest.raises(ValueError, match=r"--sgl-small m: this model has no attention, .* choose another"):
        small_engine._refuse_partial_attention("m", model)


def test_the_small_engine_takes_what_its_heads_allow(qwen2_pair, monkeypatch):
    """One layer up: the size is derived unless it was given."""
    large, _ = configs(qwen2_pair)
    monkeypatch.setattr(large.parallel_config, "tensor_parallel_size", 3)
    small = small_config(large, SGLConfig(small=str(qwen2_pair[0])))
    assert small.parallel_config.tensor_parallel_size == 1


def test_revisions_are_not_the_large_models(qwen2_pair):
    _, small = configs(qwen2_pair, {"code_revision": "own"}, revision="large", tokenizer_revision="large")
    model = small.model_config
    assert (model.revision, model.tokenizer_revision, model.code_revision) == (None, None, "own")
