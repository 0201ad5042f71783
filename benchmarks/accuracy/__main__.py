"""`python -m benchmarks.accuracy LARGE --small SMALL --data FILE.jsonl`; see the package."""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from benchmarks import report
from tools.internvl_reference.tiling import Tiling
from vllm_sgl.evaluate.errors import UsageError
from vllm_sgl.evaluate.provenance import fingerprint
from vllm_sgl.evaluate.questions import Question, load

from . import pictures, settings, tables
from .answerer import Answerer
from .command_line import POSITIONS, make_parser
from .cost import PairCost
from .settings import METHODS, Setting
from .store import Store
from .summary import summarise


def main(arguments: Sequence[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        run(options)
    except UsageError as error:
        parser.error(str(error))
    return 0


def run(options: argparse.Namespace) -> None:
    """Answer what is not answered yet, then report on everything that is.

    Raises:
        UsageError: for bad data, settings that do not go together, or an output folder of another run.
        RuntimeError: where a request went another way than its setting says.
    """
    questions = load(options.data, options.limit)
    wanted = _settings(options, questions)
    config, small_config = _config(options.large), _config(options.small)
    environment = report.environment()
    store = Store(options.out / "answers.jsonl", _identity(options, environment))
    answerer = Answerer(options, questions, Tiling.of(config), store)
    report.print_environment(environment)
    answerer.answer(wanted)

    cost = PairCost.of(config, small_config)
    summary = summarise(store, questions, options.metric, cost)
    tables.show(summary)
    path = options.out / "accuracy.json"
    tables.write(path, {**environment, "run": _identity(options, environment)}, summary)
    title = f"{Path(options.large).name}, guided by {Path(options.small).name}: {options.data.name}"
    for written in (path, *pictures.draw(summary, options.out, title)):
        report.progress(f"written: {written}")


def _settings(options: argparse.Namespace, questions: list[Question]) -> list[Setting]:
    local = Path(options.large, "model.safetensors").is_file()
    possible = [
        name
        for name, method in METHODS.items()
        if not (options.base_url and method.ranking)
        and any(map(method.asks, questions))
        and (local or not method.outside)
    ]
    methods = options.methods or possible
    outside = [name for name, method in METHODS.items() if method.outside]
    if refused := [name for name in methods if name not in possible]:
        raise UsageError(
            f"--methods {' '.join(refused)}: not possible here. Rankings need engines in this process (no "
            f"--base-url), box needs answer_boxes in the data, frames needs questions of several images, "
            f"{', '.join(outside)} need LARGE to be a local checkpoint directory with one model.safetensors. "
            f"Possible: {' '.join(possible)}"
        )
    if options.base_url and options.positions:
        raise UsageError("--positions: they are the server's own; start it with --sgl-positions instead")
    positions = [None] if options.base_url else options.positions or POSITIONS[:1]
    return settings.plan(
        methods, options.retention, positions, options.query_rows or [None], options.exit_threshold
    )


def _identity(options: argparse.Namespace, environment: dict[str, Any]) -> dict[str, Any]:
    """What every answer depends on; answers of another one are not mixed in."""
    return {
        "large": options.large,
        "small": options.small,
        "weights": {model: fingerprint(Path(model)) for model in (options.large, options.small)},
        "data": options.data.name,
        "data_sha256": hashlib.sha256(options.data.read_bytes()).hexdigest(),
        "max_tokens": options.max_tokens,
        "seed": options.seed,
        "large_args": options.large_args,
        "small_args": options.small_args,
        "base_url": options.base_url,
        "versions": environment["versions"],
        "commit": environment["commit"],
    }


def _config(model: str) -> dict[str, Any]:
    try:
        config, _ = PretrainedConfig.get_config_dict(model)
    except OSError as error:
        raise UsageError(
            f"{model}: its config.json cannot be read ({error}); expected a checkpoint directory or a "
            "model name"
        ) from None
    if not config.keys() >= {"vision_config", "llm_config", "downsample_ratio"}:
        raise UsageError(
            f"{model}: expected a model in InternVL's chat format, received {config.get('model_type')!r}"
        )
    return config


if __name__ == "__main__":
    sys.exit(main())
