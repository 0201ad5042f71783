"""The console script ``vllm-sgl``. Serving needs none: that is ``vllm serve`` with ``--sgl-*`` flags."""

import argparse
from collections.abc import Sequence

from vllm_sgl import __version__
from vllm_sgl.commands.calibrate import command as calibrate
from vllm_sgl.commands.explain import command as explain
from vllm_sgl.commands.pairs import command as pairs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit status.

    Args:
        arguments: the command line without the program's name; None for this process's own.
    """
    parser = argparse.ArgumentParser(prog="vllm-sgl", description="Tools around SGL inside vLLM.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    explain.add_to(commands)
    calibrate.add_to(commands)
    pairs.add_to(commands)
    options = parser.parse_args(arguments)
    return int(options.run(options))
