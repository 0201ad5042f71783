"""Where kernels are tested: on the GPU if there is one, else through Triton's interpreter.

``TRITON_INTERPRET=1`` must be set before Triton is first imported, and vLLM imports it too. So without
a GPU these files are left out of an ordinary session, and ``test_interpreter.py`` runs them in a process
of its own. For one test: ``TRITON_INTERPRET=1 pytest tests/kernels -k name``.
"""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
NATIVE = torch.cuda.is_available() and not INTERPRETED

collect_ignore_glob = ["test_interpreter.py"] if INTERPRETED or NATIVE else ["test_*_kernel.py"]


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if NATIVE else "cpu")


@pytest.fixture
def poisoned_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a kernel allocates without filling it holds NaN: what it reads unwritten shows."""
    for owner, name in ((torch, "empty"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, _poisoned(getattr(owner, name)))


def _poisoned(allocate):
    def allocate_poisoned(*args, **kwargs):
        tensor = allocate(*args, **kwargs)
        return tensor.fill_(float("nan") if tensor.is_floating_point() else -(1 << 30))

    return allocate_poisoned
