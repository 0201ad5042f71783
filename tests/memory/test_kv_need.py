"""What the memory plan says of a model before it is loaded is what vLLM says of its layers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from vllm import EngineArgs

from tests.memory import true_sizes
from vllm_sgl.host.start.kv_need import sequence_bytes

ROOT = Path(__file__).parents[2]
MODELS = ["latent attention", "Qwen3-VL-30B-A3B", "Gemma 3 27B", "Qwen3.5-27B", "Qwen3-VL-32B"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    command = [sys.executable, "-m", "tests.memory.own_numbers", str(tmp_path_factory.mktemp("models"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))


@pytest.mark.parametrize("name", MODELS)
def test_a_sequence_takes_what_vllms_layers_say(found, name):
    one = found[name]
    assert one["said"] == one["own"]
    assert one["longest"] == one["context"]
    assert 0.4 * one["context"] < one["longest in half"] < one["context"]


@pytest.mark.parametrize("name", MODELS)
def test_decoders_have_the_parameters_that_are_counted_for_work(found, name):
    """Experts, latents and gated delta nets included; norms and biases are not counted."""
    one = found[name]
    assert one["counted"] == pytest.approx(one["parameters"] - one["tower"], rel=0.005)


def test_layers_without_keys_and_values_are_not_counted_as_if_they_had_some(found):
    """A quarter of the layers of Qwen3.5 and a sixth of those of Gemma 3 see the whole sequence."""
    gib = 1 << 30
    assert 16 * gib < found["Qwen3.5-27B"]["said"] < 17 * gib  # 64 GiB for 64 layers
    assert 11 * gib < found["Gemma 3 27B"]["said"] < 12 * gib  # 62 for 62
    assert found["latent attention"]["said"] < gib  # 6.75 with whole heads


def test_pipeline_stages_hold_their_own_layers(tmp_path):
    path = true_sizes.write(tmp_path / "model", true_sizes.qwen3_vl(), {})
    config = EngineArgs(str(path), load_format="dummy", max_model_len=4096).create_engine_config()
    whole = sequence_bytes(config)
    config.parallel_config.pipeline_parallel_size = 2
    assert sequence_bytes(config) == whole // 2
    config.parallel_config.pipeline_parallel_size = 3  # 21, 22 and 21 of 64 layers
    assert sequence_bytes(config) == whole * 22 // 64
    config.parallel_config.tensor_parallel_size = 4
    assert sequence_bytes(config) == whole * 22 // 64 // 4
