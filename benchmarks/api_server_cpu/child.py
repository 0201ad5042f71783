"""``vllm serve`` that counts who spends its process's CPU time.

python -m benchmarks.api_server_cpu.child serve MODEL ...
"""

import runpy
from importlib import import_module

from benchmarks.api_server_cpu.parts import PLACES

_VLLM = "vllm.entrypoints.cli.main"


def main() -> None:
    from benchmarks.api_server_cpu.clocks import clock

    for part, places in PLACES.items():
        for module, owner, name in places:
            found = import_module(module)
            clock(getattr(found, owner) if owner else found, name, part)
    runpy.run_module(_VLLM, run_name="__main__")


if __name__ == "__main__":
    main()
