"""What vLLM sets up by an architecture's name is the same for its variant, which has another name."""

from dataclasses import fields

import pytest
from vllm import EngineArgs
from vllm.config.model import try_match_architecture_defaults
from vllm.config.vllm import default_breakable_cudagraph_architectures
from vllm.entrypoints.generate.structured_decisions.strategies import READ_STRATEGIES
from vllm.model_executor.models.config import MODELS_CONFIG_MAP

from tools.tiny_families import FAMILIES as TINY
from tools.tiny_families import SMALL, build
from vllm_sgl.config import SGLConfig
from vllm_sgl.engine.carried import use_sgl
from vllm_sgl.families import ACTIVE_ENV, FAMILIES, variant_name
from vllm_sgl.families.variant import activate

#: Parts of a config that say which model it is, or for which SGL is on.
_NAMES = {"model_config", "additional_config", "instance_id"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv(ACTIVE_ENV, "")
    activate()


@pytest.mark.parametrize("architecture", FAMILIES)
def test_tables_by_name(architecture):
    variant = variant_name(architecture)
    for table in (MODELS_CONFIG_MAP, READ_STRATEGIES):
        assert table.get(variant) is table.get(architecture)
    graphs = default_breakable_cudagraph_architectures()
    assert (variant in graphs) is (architecture in graphs)
    assert try_match_architecture_defaults(variant) == try_match_architecture_defaults(architecture)


@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_5_moe"])
def test_configs_are_the_same_but_for_names(name, tmp_path):
    """In a GPU's dtype: a state that falls back to it is bfloat16, where the checkpoint asks for float32."""
    path = str(build(TINY[name], SMALL, tmp_path))
    arguments = {"dtype": "bfloat16", "max_model_len": 640, "enable_prefix_caching": True}
    plain = EngineArgs(path, **arguments).create_engine_config()
    engine_args = EngineArgs(path, **arguments)
    use_sgl(engine_args, SGLConfig(small=path))
    variant = engine_args.create_engine_config()
    assert variant.model_config.architecture == variant_name(plain.model_config.architecture)
    assert variant.cache_config.mamba_ssm_cache_dtype == "float32"
    for field in fields(plain):
        if field.name not in _NAMES:
            assert str(getattr(variant, field.name)) == str(getattr(plain, field.name)), field.name
    for name in ("tokenizer_mode", "runner_type", "convert_type", "is_hybrid", "uses_mrope"):
        assert getattr(variant.model_config, name) == getattr(plain.model_config, name), name
