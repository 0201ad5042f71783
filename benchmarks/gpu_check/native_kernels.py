"""Kernel tests, compiled for this device and not interpreted, then the kernels' own benchmark."""

import json
import sys
import xml.etree.ElementTree as ElementTree

from benchmarks.support.workspace import ROOT

from .section import Check, Section

_TEST_SECONDS, _BENCHMARK_SECONDS = 200, 90
_CEILINGS = ("copy GB/s", "matmul TFLOP/s")  # of this device, as `benchmarks.kernels` measured them
# The project's own pytest settings need plugins that a bare GPU machine may lack, and would put the
# checkout before an installed package.
_PYTEST = ("-q", "-o", "addopts=", "-o", "pythonpath=", "--import-mode=append")


def test(check: Check) -> Section:
    """Run the kernel tests."""
    section = Section()
    report = check.work / "kernel-tests.xml"
    files = sorted(str(path) for path in (ROOT / "tests/kernels").glob("test_*_kernel.py"))
    command = [sys.executable, "-m", "pytest", *_PYTEST, f"--junitxml={report}", *files]
    if check.smoke:
        command += ["-k", "gather", "-m", "not cuda"]
    environment = {"TRITON_INTERPRET": "1"} if check.smoke else {}
    code = check.run(command, "kernel-tests.log", _TEST_SECONDS, environment)
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    if report.exists():
        for suite in ElementTree.parse(report).iter("testsuite"):
            for name in counts:
                counts[name] += int(suite.get(name, 0))
    section.rows.append({"what": "kernel tests", "exit": code, **counts})
    section.expect(
        code == 0 and counts["tests"] > 0 and not counts["skipped"],
        f"kernel tests: exit {code}, {counts}\n{check.tail('kernel-tests.log')}",
    )
    return section


def measure(check: Check) -> Section:
    """Run `benchmarks.kernels`; alone on the device, so that its figures mean something."""
    section = Section()
    result = check.work / "kernel-benchmark.json"
    command = [sys.executable, "-m", "benchmarks.kernels", "--out", str(result)]
    code = check.run(command, "kernel-benchmark.log", _BENCHMARK_SECONDS)
    section.expect(code == 0, f"benchmarks.kernels: exit {code}\n{check.tail('kernel-benchmark.log')}")
    if result.exists():
        found = json.loads(result.read_text())
        section.rows += found["rows"]
        section.notes += [f"{name}: {found[name]:.0f}" for name in _CEILINGS if name in found]
    return section
