"""``EngineArgs``: our flags on vLLM's command line, and what they mean for the large engine's config.

Symptom without it: ``vllm serve`` knows no ``--sgl-*`` flag. vLLM loads plugins inside
``AsyncEngineArgs.add_cli_args``, but has no registry of flags and copies only its own fields from the
parsed arguments. Remove when vLLM lets a plugin add arguments.

Engine arguments that a Python program makes pass no command line. Symptom without :func:`watch`: settings
in their ``additional_config`` are carried along, and nothing guides. vLLM hands a config to plugins only in
the processes of an engine. Remove when it does so where configs are made.
"""

from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from vllm import envs
from vllm.config import CompilationMode, VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs
from vllm.platforms import current_platform
from vllm.usage.usage_lib import UsageContext

from vllm_sgl.config import CONFIG_KEY, SGLConfig
from vllm_sgl.host.patch import wrap

_FIX = "vllm_sgl/host/start/engine_args.py"


def install(
    add_flags: Callable[[Any], Any],
    fold: Callable[[Namespace], SGLConfig | None],
    use_sgl: Callable[[EngineArgs, SGLConfig], None],
) -> None:
    """Add flags to every parser made from now on, and read them; idempotent.

    add_flags: adds them to a parser and returns it. fold: moves them from parsed arguments into
    ``additional_config`` and returns the settings, None where SGL is off. use_sgl: makes engine arguments
    those of an SGL large engine.
    """
    wrap(EngineArgs, "add_cli_args", ("parser",), _FIX, partial(_adding_flags, add_flags))
    wrap(EngineArgs, "from_cli_args", ("cls", "args"), _FIX, partial(_folding_flags, fold, use_sgl))


def watch(prepare: Callable[[EngineArgs, bool], None]) -> None:
    """Prepare engine arguments that carry settings before a config is made of them; idempotent. Others pass
    as they are.

    prepare: is given them, and whether ``vllm.LLM`` makes the config.
    """
    making = partial(_preparing, prepare)
    wrap(EngineArgs, "create_engine_config", ("self", "usage_context"), _FIX, making)


def _preparing(prepare: Any, create_engine_config: Any) -> Any:
    def create_engine_config_of_ours(
        self: EngineArgs, usage_context: UsageContext | None = None, *args: Any, **kwargs: Any
    ) -> VllmConfig:
        if isinstance(self.additional_config, Mapping) and CONFIG_KEY in self.additional_config:
            prepare(self, usage_context is UsageContext.LLM_CLASS)
        config: VllmConfig = create_engine_config(self, usage_context, *args, **kwargs)
        return config

    return create_engine_config_of_ours


def _adding_flags(add_flags: Any, add_cli_args: Any) -> Any:
    def add_cli_args_and_ours(parser: Any) -> Any:
        return add_flags(add_cli_args(parser))

    return add_cli_args_and_ours


def _folding_flags(fold: Any, use_sgl: Any, from_cli_args: Any) -> Any:
    def from_cli_args_and_ours(cls: type, args: Namespace) -> Any:
        try:
            config = fold(args)
            if config is not None:
                refuse_offline(cls)
                refuse_components(getattr(args, "launch_component", None))
                refuse_frontends(headless=getattr(args, "headless", False))
                refuse_replicas(
                    api_servers=getattr(args, "api_server_count", None),
                    data_parallel=getattr(args, "data_parallel_size", None),
                )
        except ValueError as error:
            # Python prints the text and ends with 1.
            raise SystemExit(f"vllm: {error}") from None
        engine_args = from_cli_args(cls, args)
        if config is not None:
            use_sgl(engine_args, config)
        return engine_args

    return from_cli_args_and_ours


def refuse_offline(engine_args: type) -> None:
    """A command that builds ``vllm.LLM``, such as ``vllm bench latency``, would run unguided in silence.

    Raises:
        ValueError: for such a command, by its kind of engine arguments.
    """
    if not issubclass(engine_args, AsyncEngineArgs):
        raise ValueError(
            "--sgl-small guides vLLM's server, not vllm.LLM, which this command builds: measure with "
            "`vllm bench serve` against `vllm serve ... --sgl-small ...`, or use vllm_sgl.LLM in Python"
        )


def refuse_components(component: str | None) -> None:
    """``vllm launch render`` takes every flag of ``vllm serve``, and has no engine to guide.

    Raises:
        ValueError: for such a command, by the name of what it launches.
    """
    if component is not None:
        raise ValueError(
            f"--sgl-small guides a server that generates; received it with `vllm launch {component}`, which "
            "has no engine: give it to `vllm serve` alone"
        )


def refuse_frontends(headless: bool) -> None:
    """SGL lives in Python's engine client; a server without one would silently serve unguided."""
    if headless or envs.VLLM_USE_RUST_FRONTEND:
        raise ValueError(
            "SGL needs vLLM's Python server in the engine's process; received "
            f"{'--headless' if headless else 'VLLM_USE_RUST_FRONTEND=1'}: drop it, or serve without SGL"
        )


def refuse_replicas(api_servers: int | None, data_parallel: int | None) -> None:
    """The small engine lives in the server process, so there is one server process and one replica."""
    # In this order: vLLM derives the number of servers from the number of replicas.
    for flag, count in (("--data-parallel-size", data_parallel), ("--api-server-count", api_servers)):
        if count is not None and count > 1:
            raise ValueError(
                f"SGL runs one small engine inside one server process; received {flag} {count}: use 1, and "
                "start one server per replica behind a load balancer"
            )


def refuse_nodes(config: VllmConfig) -> None:
    """The small engine's processes run beside the server, and the memory plan knows the devices there.

    Raises:
        ValueError: for an engine whose workers are elsewhere, or where Ray puts them.
    """
    parallel = config.parallel_config
    backend = parallel.distributed_executor_backend
    received = None
    if parallel.nnodes > 1:
        received = f"--nnodes {parallel.nnodes}"
    elif backend == "ray" or "ray" in getattr(backend, "__name__", "").lower():
        received = "--distributed-executor-backend ray (vLLM's choice inside a Ray placement group)"
    if received is not None:
        raise ValueError(
            f"SGL runs both engines on the devices of one machine, in processes of their own; received "
            f"{received}: use --distributed-executor-backend mp with the devices of one node (a smaller or "
            "quantised model, or fewer devices), and start one server per node behind a load balancer; or "
            "serve without --sgl-small"
        )


def refuse_eager_stages(config: VllmConfig) -> None:
    """On CPUs vLLM makes the buffers between pipeline stages while it warms up for compilation. An eager
    engine whose KV cache has a size, as SGL gives one, skips that, and ends over its first request.

    Raises:
        ValueError: for such an engine.
    """
    stages = config.parallel_config.pipeline_parallel_size
    if stages > 1 and current_platform.is_cpu() and config.compilation_config.mode == CompilationMode.NONE:
        raise ValueError(
            f"received --pipeline-parallel-size {stages} and --enforce-eager: vLLM's CPU engine would end "
            "over its first request (it makes the buffers between stages only while it warms up for "
            "compilation): drop one of the two"
        )


def refuse_connectors(config: VllmConfig) -> None:
    """Refuse KV connectors: any other reader of the cache would have to prune prompts in the same way."""
    for flag, given in (
        ("--kv-transfer-config (or --kv-offloading-size)", config.kv_transfer_config),
        ("--ec-transfer-config", config.ec_transfer_config),
    ):
        if given is not None:
            raise ValueError(
                f"SGL does not share KV or encoder caches: the engines would prune one prompt differently; "
                f"received {flag}: drop it, or serve without --sgl-small"
            )
