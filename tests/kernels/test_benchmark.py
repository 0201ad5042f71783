"""benchmarks/kernels.py on a CPU: the references run, and it says that no kernel did."""

import json

import pytest
import torch

from benchmarks import kernel_operations, kernels


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_smoke(on_cpu, tmp_path, capsys):
    assert kernels.main(["--json", str(tmp_path / "results.json")]) == 0
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
    assert hasattr(kernel_operations, name)
    operation = kernels.OPERATIONS[name]
    operation.build(torch.device("cpu"), **operation.small).verify()


def test_no_number_from_a_kernel_that_disagrees(monkeypatch, capsys):
    def disagree():
        raise AssertionError("other bits")

    work = kernels.Work(kernel=None, naive=None, verify=disagree, moved=1)
    wrong = kernels.Operation("wrong", lambda device: work, {"large": {}}, {})
    monkeypatch.setattr(kernels, "OPERATIONS", {"wrong": wrong})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(kernels, "measure_ceilings", lambda device: kernels.Ceilings(1.0, 1.0))
    monkeypatch.setattr(kernels.report, "gpu", lambda: "a GPU")
    assert kernels.main([]) == 1
    printed = capsys.readouterr().out
    assert "kernel and naive disagree: other bits" in printed
    assert "|" not in printed
