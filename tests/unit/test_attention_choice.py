"""Which attention backend vLLM comes to on a GPU, by its own code for CUDA."""

import sys

from tests.support.server import run_command

_ASK = """
import sys, types
sys.modules["vllm._C_stable_libtorch"] = types.ModuleType("")  # kernels that a CPU's vLLM does not have
import torch
from vllm.platforms.cuda import CudaPlatformBase, _get_backend_priorities
from vllm.platforms.interface import DeviceCapability
from vllm.v1.attention.selector import AttentionSelectorConfig

asked = AttentionSelectorConfig(head_size=128, dtype=torch.bfloat16, kv_cache_dtype="auto", block_size=None)
for capability in ((7, 5), (8, 0), (9, 0), (10, 0), (12, 0)):
    device = DeviceCapability(*capability)
    first, *_ = (backend.name for backend in _get_backend_priorities(False, device))
    found, _ = CudaPlatformBase.get_valid_backends(device, asked)
    print(*capability, first, *(one.backend.name for one in found))
"""


def test_what_vllm_chooses():
    """Where this changes, so must ``_readable_backend`` in ``vllm_sgl/host/start/small_args.py``. FlashInfer
    is not installed here, and so never among those that could be used."""
    result = run_command([sys.executable, "-c", _ASK])
    assert result.returncode == 0, result.stdout[-3000:]
    lines = [line.split() for line in result.stdout.splitlines() if line[:1].isdigit()]
    found = {(int(major), int(minor)): (first, usable) for major, minor, first, *usable in lines}
    for capability in ((8, 0), (9, 0), (12, 0)):
        first, usable = found[capability]
        assert first == usable[0] == "FLASH_ATTN"
    assert found[10, 0][0] == "FLASHINFER"
    assert "FLASH_ATTN" in found[10, 0][1]
    assert "FLASH_ATTN" not in found[7, 5][1]  # so that FlashInfer is next
    assert "TRITON_ATTN" in found[7, 5][1]
