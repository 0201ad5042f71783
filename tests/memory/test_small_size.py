"""The small engine's context and batch follow its KV cache, unless the user set them."""

import json
import logging
import shutil
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from vllm import EngineArgs

from vllm_sgl.config import SGLConfig
from vllm_sgl.engine import small_size
from vllm_sgl.engine.carried import use_sgl
from vllm_sgl.engine.memory import GIB, MIB
from vllm_sgl.engine.start import small_config
from vllm_sgl.host.start.device import Device
from vllm_sgl.host.start.engine_args import refuse_eager_stages, refuse_nodes
from vllm_sgl.host.start.kv_need import sequence_bytes


@pytest.fixture(scope="module")
def pair(qwen2_pair, tmp_path_factory):
    """The tiny pair, as if it had been made for contexts of 8,192 tokens."""
    root = tmp_path_factory.mktemp("long")
    for name, source in zip(("small", "large"), qwen2_pair, strict=True):
        config = json.loads((shutil.copytree(source, root / name) / "config.json").read_text())
        config["llm_config"]["max_position_embeddings"] = 8192
        (root / name / "config.json").write_text(json.dumps(config))
    return root / "small", root / "large"


@pytest.fixture
def configs(pair):
    def make(sgl=None, **arguments):
        settings = SGLConfig.parse({"small": str(pair[0]), **(sgl or {})})
        arguments = {"max_model_len": 4096, "max_num_seqs": 1024, "dtype": "float32", **arguments}
        engine_args = EngineArgs(str(pair[1]), trust_remote_code=True, **arguments)
        use_sgl(engine_args, settings)
        large = engine_args.create_engine_config()
        return large, small_config(large, settings), settings

    return make


@contextmanager
def heard():
    """Making a config sets vLLM's logger up anew, whose records then do not reach pytest's."""
    logger = logging.getLogger("vllm")
    logger.setLevel("INFO")
    logger.propagate = True
    yield


@pytest.fixture
def room(monkeypatch):
    """Bytes that the small engine's KV cache may have."""

    def set_room(bytes_):
        monkeypatch.setattr(small_size, "room_for_small", lambda *arguments: bytes_)

    monkeypatch.setattr(small_size.host, "device", lambda: Device("cpu", "a node", 64 * GIB, 60 * GIB))
    return set_room


def test_a_context_that_does_not_fit_is_shortened(configs, room, caplog):
    large, small, settings = configs()
    room(sequence_bytes(small))
    assert small_size.fitting_context(large, small, settings) is None
    room(sequence_bytes(small) * 5 // 8)
    with caplog.at_level("INFO"), heard():
        context = small_size.fitting_context(large, small, settings)
    assert 2048 <= context <= 4096 * 5 // 8
    assert "the small engine's context is" in caplog.text
    assert "Longer requests are not guided" in caplog.text
    again = small_config(large, settings, context)
    assert again.model_config.max_model_len == context
    assert sequence_bytes(again) <= sequence_bytes(small) * 5 // 8


def test_a_context_of_the_users_stands_and_a_hopeless_one_is_the_plans_to_refuse(configs, room):
    large, small, settings = configs({"small_args": {"max_model_len": 4000}})
    room(sequence_bytes(small) // 2)
    assert small_size.fitting_context(large, small, settings) is None
    large, small, settings = configs()
    room(sequence_bytes(small) // 8)
    assert small_size.fitting_context(large, small, settings) is None


@pytest.mark.parametrize(
    ("full_length", "sequences"), [(16, 128), (1, 16), (1000, 1024)], ids=["cache", "least", "large engine's"]
)
def test_the_batch_follows_the_kv_cache(configs, full_length, sequences):
    """16 sequences of 4,096 tokens are 128 of 512."""
    _, small, settings = configs()
    each = sequence_bytes(small)
    plan = SimpleNamespace(small_kv=full_length * each)
    small_size.fit_sequences(small, settings, plan, each)
    assert small.scheduler_config.max_num_seqs == sequences


def test_a_batch_of_the_users_stands(configs):
    _, small, settings = configs({"small_args": {"max_num_seqs": 700}})
    each = sequence_bytes(small)
    small_size.fit_sequences(small, settings, SimpleNamespace(small_kv=each), each)
    assert small.scheduler_config.max_num_seqs == 700


def test_pinned_memory_bounds_the_batch_and_is_said(configs, monkeypatch, caplog):
    large, small, settings = configs()
    each = sequence_bytes(small)
    monkeypatch.setattr(
        small_size.host, "pinned_bytes", lambda config: 64 * MIB * config.scheduler_config.max_num_seqs
    )
    small_size.fit_sequences(small, settings, SimpleNamespace(small_kv=1000 * each), each)
    assert small.scheduler_config.max_num_seqs == 16  # of 64 MiB each
    large.scheduler_config.max_num_seqs = 32
    monkeypatch.setattr(small_size.host, "host_memory", lambda: 4 * GIB)
    with caplog.at_level("INFO"), heard():
        small_size.check_pinned(small, large)
    said = "1.00 GiB in each worker of the small engine, 2.00 GiB in each worker of the large engine"
    assert said in caplog.text
    large.parallel_config.world_size = 2
    with pytest.raises(ValueError, match=r"not enough host memory: 4.00 GiB free; .*5.00 GiB in all"):
        small_size.check_pinned(small, large)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"nnodes": 2}, "received --nnodes 2"), ({"distributed_executor_backend": "ray"}, "received .*ray")],
)
def test_several_nodes_are_refused_with_what_to_do(configs, changes, words):
    large, _, _ = configs()
    refuse_nodes(large)
    vars(large.parallel_config).update(changes)
    with pytest.raises(ValueError, match=f"{words}.*use --distributed-executor-backend mp with the devices"):
        refuse_nodes(large)


def test_stages_on_a_cpu_are_refused_where_vllm_would_end_over_them(configs):
    """Compiled, two stages answer as one does; the buffers between eager ones are never made."""
    compiled, eager = (configs(enforce_eager=eager)[0] for eager in (False, True))
    for config in (compiled, eager):
        refuse_eager_stages(config)
        config.parallel_config.pipeline_parallel_size = 2
    refuse_eager_stages(compiled)
    with pytest.raises(ValueError, match=r"--pipeline-parallel-size 2 and --enforce-eager: .*drop one"):
        refuse_eager_stages(eager)
