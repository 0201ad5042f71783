"""What the memory plan is told: read from made-up /sys trees and checkpoints, by vLLM's own functions."""

import json
from math import prod
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from vllm import EngineArgs
from vllm.utils import cpu_resource_utils as vllm_cpu

from vllm_sgl.config import SGLConfig
from vllm_sgl.engine import memory
from vllm_sgl.engine.carried import use_sgl
from vllm_sgl.engine.memory import share_memory
from vllm_sgl.engine.start import small_config
from vllm_sgl.host.start import device as host
from vllm_sgl.host.start.kv_need import sequence_bytes

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

NODE = """\
Node {node} MemTotal:       {total} kB
Node {node} MemFree:        {free} kB
Node {node} Active(file):   {file} kB
Node {node} Inactive(file): 0 kB
Node {node} SReclaimable:   0 kB
"""


class Machine:
    """A tree of files in place of /sys, and cores in place of those of the machine."""

    def __init__(self, root: Path, monkeypatch):
        self._root, self._patch = root, monkeypatch
        monkeypatch.setattr(vllm_cpu, "open", self._open, raising=False)
        exists = vllm_cpu.os.path.exists
        monkeypatch.setattr(vllm_cpu.os.path, "exists", lambda path: exists(self._inside(path)))
        vllm_cpu.get_cgroup_memory_limit.cache_clear()
        self.cores(0, 0)

    def _inside(self, path):
        return self._root / str(path).lstrip("/") if str(path).startswith("/sys/") else path

    def _open(self, path):
        return open(self._inside(path))

    def cores(self, *nodes):
        """One core each on these NUMA nodes."""
        cores = [vllm_cpu.LogicalCPUInfo(id=i, physical_core=i, numa_node=n) for i, n in enumerate(nodes)]
        self._patch.setattr(vllm_cpu, "get_allowed_cpu_list", lambda: cores)
        self._patch.setattr(vllm_cpu, "get_visible_memory_node", lambda: sorted(set(nodes)))

    def node(self, number, total, free, file=0):
        self.write(
            f"/sys/devices/system/node/node{number}/meminfo",
            NODE.format(node=number, total=total // KIB, free=free // KIB, file=file // KIB),
        )

    def write(self, path, text):
        file = self._inside(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(text))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    yield Machine(tmp_path, monkeypatch)
    vllm_cpu.get_cgroup_memory_limit.cache_clear()


def test_a_cpu_is_one_numa_node(machine):
    """Not the machine: half of it is another node's."""
    machine.node(0, 32 * GIB, 10 * GIB, file=2 * GIB)
    machine.node(1, 32 * GIB, 30 * GIB)
    found = host.device()
    assert (found.kind, found.name) == ("cpu", "NUMA node 0")
    assert (found.total, found.free) == (32 * GIB, 12 * GIB)  # page cache can be had


def test_the_node_is_that_of_the_cores_that_the_user_bound(machine, monkeypatch):
    machine.cores(0, 0, 1, 1)
    machine.node(0, 32 * GIB, 10 * GIB)
    machine.node(1, 16 * GIB, 15 * GIB)
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "2-3|0-1")
    assert host.device().name == "NUMA node 1"


@pytest.mark.parametrize(
    ("limit", "usage"),
    [
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ],
    ids=["v2", "v1"],
)
def test_a_containers_limit_counts(machine, limit, usage):
    machine.node(0, 64 * GIB, 60 * GIB)
    machine.write(limit, 6 * GIB)
    machine.write(usage, GIB)
    found = host.device()
    assert (found.total, found.free) == (6 * GIB, 5 * GIB)
    assert found.name == "this container (its cgroup's limit)"


def test_a_containers_limit_that_does_not_bind(machine):
    machine.node(0, 64 * GIB, 60 * GIB)
    machine.write("/sys/fs/cgroup/memory.max", "max")
    assert host.device().total == 64 * GIB


def checkpoint(path, tensors):
    save_file(tensors, path / "model.safetensors")
    return config(path)


def config(path, dtype=torch.bfloat16, tensor_parallel=1, stages=1, quantization=None, **hf_config):
    return SimpleNamespace(
        model_config=SimpleNamespace(
            model=str(path),
            revision=None,
            dtype=dtype,
            quantization=quantization,
            hf_config=SimpleNamespace(**hf_config),
        ),
        parallel_config=SimpleNamespace(tensor_parallel_size=tensor_parallel, pipeline_parallel_size=stages),
    )


def test_floats_count_at_the_engines_dtype(tmp_path):
    tensors = {"a": torch.zeros(64, 64), "b": torch.zeros(64, dtype=torch.float16)}
    assert host.weight_bytes(checkpoint(tmp_path, tensors)) == 2 * (64 * 64 + 64)


def test_packed_weights_count_as_stored(tmp_path):
    """AWQ and GPTQ: eight 4-bit weights in an I32. compressed-tensors: the same, or I8. fp8: a byte each."""
    tensors = {
        "layer.qweight": torch.zeros(4096, 512, dtype=torch.int32),
        "layer.qzeros": torch.zeros(32, 512, dtype=torch.int32),
        "layer.scales": torch.zeros(32, 4096, dtype=torch.float16),
        "other.weight_packed": torch.zeros(1024, 64, dtype=torch.int32),
        "third.weight": torch.zeros(256, 256, dtype=torch.float8_e4m3fn),
        "fourth.weight": torch.zeros(256, 256, dtype=torch.int8),
        "fourth.weight_shape": torch.zeros(2, dtype=torch.int64),
    }
    packed = 4 * (4096 * 512 + 32 * 512 + 1024 * 64)
    assert host.weight_bytes(checkpoint(tmp_path, tensors)) == packed + 2 * 32 * 4096 + 2 * 256 * 256 + 16


@pytest.mark.parametrize("quantization", ["fp8", "fp8_per_block", "mxfp8", "int8_per_channel_weight_only"])
def test_linear_layers_count_as_what_they_are_made_into_at_loading(tmp_path, quantization):
    """Else a model that fits would be refused; embeddings, norms and convolutions stay what they are."""
    linear = {"language_model.layers.0.attn.wo.weight": (64, 32), "vision_model.mlp.fc1.weight": (32, 64)}
    others = {
        "language_model.model.tok_embeddings.weight": (128, 16), "language_model.output.weight": (128, 16),
        "language_model.model.embed_tokens.weight": (64, 16), "language_model.lm_head.weight": (64, 16),
        "language_model.norm.weight": (16,), "vision_model.embeddings.patch_embedding.weight": (8, 3, 2, 2),
    }  # fmt: skip
    tensors = {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in (linear | others).items()}
    few, rest = (sum(prod(shape) for shape in of.values()) for of in (linear, others))
    checkpoint(tmp_path, tensors)
    assert host.weight_bytes(config(tmp_path)) == 2 * few + 2 * rest
    assert host.weight_bytes(config(tmp_path, quantization=quantization)) == few + 2 * rest
    # What a checkpoint has already quantised is stored so, and what it left alone stays.
    stored = {"quant_method": quantization}
    quantised = config(tmp_path, quantization=quantization, quantization_config=stored)
    assert host.weight_bytes(quantised) == 2 * few + 2 * rest


def test_experts_that_are_one_tensor_are_linear_layers_too(tmp_path):
    tensors = {"layers.0.mlp.experts.down_proj": (8, 16, 4), "layers.0.conv.weight": (8, 4, 4)}
    checkpoint(tmp_path, {name: torch.zeros(shape) for name, shape in tensors.items()})
    assert host.weight_bytes(config(tmp_path)) == 2 * (8 * 16 * 4 + 8 * 4 * 4)
    assert host.weight_bytes(config(tmp_path, quantization="fp8")) == 8 * 16 * 4 + 2 * 8 * 4 * 4


def test_an_index_counts_where_its_parts_are_not_there(tmp_path):
    """Such as a checkpoint that is loaded from elsewhere, or not at all (``--load-format dummy``)."""
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 51_000}, "weight_map": {}}))
    assert host.weight_bytes(config(tmp_path, tensor_parallel=2)) == 25_500
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {}}))
    assert host.weight_bytes(config(tmp_path)) == 0
    index.write_text(json.dumps({"metadata": {"total_size": 51_000}}))
    assert host.weight_bytes(checkpoint(tmp_path, {"a": torch.zeros(8)})) == 16  # headers know better


def test_weights_are_shared_by_workers_and_may_be_in_other_files(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(3000))
    assert host.weight_bytes(config(tmp_path)) == 3000
    assert host.weight_bytes(config(tmp_path, tensor_parallel=2)) == 1500
    assert host.weight_bytes(config(tmp_path, tensor_parallel=2, stages=3)) == 500
    (tmp_path / "pytorch_model.bin").unlink()
    assert host.weight_bytes(config(tmp_path)) == 0


@pytest.fixture(scope="module")
def configs(qwen2_pair):
    """Both engines' configs, as a server makes them."""

    def make(sgl=None, **arguments):
        settings = SGLConfig(small=str(qwen2_pair[0]), **(sgl or {}))
        arguments = {"max_model_len": 1000, "max_num_seqs": 8, "enforce_eager": True, **arguments}
        large_args = EngineArgs(str(qwen2_pair[1]), trust_remote_code=True, dtype="float32", **arguments)
        use_sgl(large_args, settings)
        large = large_args.create_engine_config()
        return large, small_config(large, settings), settings

    return make


def by_hand(config, element):
    """Keys and values of whole blocks, in every layer."""
    text, block = config.model_config.hf_text_config, config.cache_config.block_size
    head = text.hidden_size // text.num_attention_heads
    blocks = -(-config.model_config.max_model_len // block)
    return 2 * text.num_key_value_heads * head * element * text.num_hidden_layers * blocks * block


def test_kv_cache_of_a_sequence(configs):
    large, small, _ = configs()
    assert sequence_bytes(large) == by_hand(large, 4)
    assert sequence_bytes(small) == by_hand(small, 4)
    assert large.model_config.max_model_len % large.cache_config.block_size  # so blocks matter
    large.cache_config.cache_dtype = "fp8"
    assert sequence_bytes(large) == by_hand(large, 1)


def test_the_plan_is_written_where_vllm_reads_it(configs, machine, caplog, monkeypatch):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    machine.node(0, 24 * GIB, 12 * GIB)
    large, small, settings = configs()
    with caplog.at_level("INFO", "vllm.vllm_sgl.memory"):
        monkeypatch.setattr("vllm_sgl.engine.memory.logger.propagate", True)
        found = share_memory(large, small, settings)
    assert large.cache_config.kv_cache_memory_bytes == found.large_kv == 8 * sequence_bytes(large)
    assert small.cache_config.kv_cache_memory_bytes == found.small_kv == 16 * sequence_bytes(small)
    assert large.cache_config.gpu_memory_utilization == 0.92  # vLLM's default: not ours to change on a CPU
    said = caplog.messages[-1]
    assert "on NUMA node 0 for both engines" in said
    assert "8.0 sequences of full length" in said
    assert "16,000 tokens" in said


def test_weights_that_nobody_knows_are_said(configs, machine, caplog, monkeypatch):
    machine.node(0, 24 * GIB, 12 * GIB)
    monkeypatch.setattr("vllm_sgl.engine.memory.logger.propagate", True)
    large, small, settings = configs()
    known = host.weight_bytes(small)
    for found, said in ((0, 1), (known, 0)):
        monkeypatch.setattr(host, "weight_bytes", lambda of, found=found: found if of is small else known)
        caplog.clear()
        share_memory(large, small, settings)
        ours = [text for name, _, text in caplog.record_tuples if name == memory.logger.name]
        warnings = [text for text in ours if "could not be read from its checkpoint" in text]
        assert len(warnings) == said
        assert not said or "the small model's weights" in warnings[0]


def test_settings_of_the_user_stand_and_are_named(configs, machine, monkeypatch):
    machine.node(0, 24 * GIB, 12 * GIB)
    own = {"small_args": {"kv_cache_memory_bytes": 64 * MIB}}
    large, small, settings = configs(own, kv_cache_memory_bytes=96 * MIB)
    share_memory(large, small, settings)
    assert large.cache_config.kv_cache_memory_bytes == 96 * MIB
    assert small.cache_config.kv_cache_memory_bytes == 64 * MIB
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "100")
    large, small, settings = configs()
    with pytest.raises(ValueError, match="Change VLLM_CPU_KVCACHE_SPACE, --sgl-small-memory"):
        share_memory(large, small, settings)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "2")
    large, small, settings = configs()
    share_memory(large, small, settings)
    assert large.cache_config.kv_cache_memory_bytes == 2 * GIB
    assert small.cache_config.kv_cache_memory_bytes == 16 * sequence_bytes(small)


def test_pinned_memory_is_what_runner_v2_takes(configs, monkeypatch):
    """By the class that takes it, with pinned memory out of reach."""
    from vllm.v1.worker.gpu import buffer_utils
    from vllm.v1.worker.gpu.mm.rope import RopeState

    (large, _, _), (packed, _, _) = configs(), configs({"positions": "packed"})
    assert host.pinned_bytes(large) == 0  # a CPU has runner V1
    monkeypatch.setattr(buffer_utils, "is_uva_available", lambda: False)
    monkeypatch.setattr(host, "current_platform", SimpleNamespace(is_cpu=lambda: False))
    monkeypatch.setattr(type(large), "use_v2_model_runner", True)
    model, sequences = large.model_config, large.scheduler_config.max_num_seqs
    state = RopeState(model.mrope_num_dims, sequences, 64, model.max_model_len, torch.device("cpu"))
    assert host.pinned_bytes(large) == state.prefill_positions.gpu.nbytes == 3 * 8 * 1000 * 4
    assert host.pinned_bytes(packed) == 0
