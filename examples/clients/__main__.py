"""Every client against one server of the shipped pair: ``python -m examples.clients [NAME ...]``.

What is not installed is installed into an environment of its own, below ``build/clients``.
"""

import argparse
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from examples.demo.shipped import LARGE, SHIPPED_ARGS, SMALL
from examples.demo.vllm_serve import flags, serving

from .environments import FOLDER, python_of


@dataclass(frozen=True)
class Client:
    """script: a module here. requirement: what pip installs, the release that was tried; None where the
    project has it anyway. server: whether it asks one."""

    script: str
    requirement: str | None = None
    server: bool = True


CLIENTS = {
    "openai": Client("with_openai"),
    "anthropic": Client("with_anthropic"),
    "litellm": Client("with_litellm", "litellm==1.110.2"),
    "langchain": Client("with_langchain", "langchain-openai==1.7.4"),
    "guidellm": Client("with_guidellm", "guidellm==0.8.1"),
    "lmms-eval": Client("with_lmms_eval", "lmms-eval==0.7.3"),
    "vllm-bench": Client("with_vllm_bench"),
    "run-batch": Client("with_run_batch", server=False),
}

#: The pair is on disk, so nothing is fetched; LiteLLM would fetch a list of prices, and wait for it in vain.
_ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.clients", description=__doc__)
    parser.add_argument("clients", nargs="*", metavar="NAME", help=f"of {', '.join(CLIENTS)}; default: all")
    chosen = parser.parse_args().clients or list(CLIENTS)
    if unknown := [name for name in chosen if name not in CLIENTS]:
        parser.error(f"expected names of {', '.join(CLIENTS)}; received {', '.join(unknown)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    pythons = {name: python_of(name, CLIENTS[name].requirement) for name in chosen}
    failed = []

    def run(name: str, *arguments: str) -> None:
        print(f"\n== {name}: python -m examples.clients.{CLIENTS[name].script}", *arguments, flush=True)
        command = [pythons[name], "-m", f"examples.clients.{CLIENTS[name].script}", *arguments]
        if subprocess.run(command, env=_ENVIRONMENT).returncode:
            failed.append(name)

    asking = [name for name in chosen if CLIENTS[name].server]
    if asking:
        with serving(str(LARGE), str(SMALL), SHIPPED_ARGS, Path(FOLDER, "server.log")) as address:
            for name in asking:
                run(name, "--server", address)
    for name in chosen:
        if not CLIENTS[name].server:
            run(
                name,
                str(LARGE),
                "--small",
                str(SMALL),
                "--sgl-break-even=off",
                "--sgl-follow-ups=off",
                *flags(SHIPPED_ARGS),
            )
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
