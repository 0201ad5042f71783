"""`benchmarks.kernels` on a CPU: the references run, and it says that no kernel did."""

import json

import pytest
import torch

from benchmarks.kernels import __main__ as command
from benchmarks.kernels import operations
from benchmarks.kernels.measure import Ceilings
from benchmarks.kernels.work import OPERATIONS, Operation, Work


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_smoke(on_cpu, tmp_path, capsys):
    assert command.main(["--out", str(tmp_path / "results.json")]) == 0
    printed = capsys.readouterr()
    assert "No CUDA GPU" in printed.out
    assert "gather_visual, small ..." in printed.err
    results = json.loads((tmp_path / "results.json").read_text())
    assert {row["operation"] for row in results["rows"]} == {"attention_mass", "gather_visual"}
    assert all(row["naive us"] > 0 and row["kernel us"] is None for row in results["rows"])
    assert results["commit"]
    assert results["versions"]["torch"]


@pytest.mark.parametrize("name", ["attention_mass", "gather_visual"])
def test_reference_agrees_with_itself(name):
    """On a CPU an operation dispatches to its reference, so this runs ``verify`` itself."""
    assert hasattr(operations, name)
    operation = OPERATIONS[name]
    operation.build(torch.device("cpu"), **operation.small).verify()


def test_no_number_from_a_kernel_that_disagrees(monkeypatch, capsys):
    def disagree():
        raise AssertionError("other bits")

    work = Work(kernel=None, naive=None, verify=disagree, moved=1)
    wrong = Operation("wrong", lambda device: work, {"large": {}}, {})
    monkeypatch.setattr(command, "OPERATIONS", {"wrong": wrong})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(command, "measure_ceilings", lambda device: Ceilings(1.0, 1.0))
    monkeypatch.setattr(command.report, "gpu", lambda: "a GPU")
    assert command.main([]) == 1
    printed = capsys.readouterr().out
    assert "kernel and naive disagree: other bits" in printed
    assert "|" not in printed
