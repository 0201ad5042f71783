"""Pairs and settings that the server refuses before it starts an engine: called directly, so that each
costs a second instead of a start-up."""

import json
import shutil

import pytest
from vllm import AsyncEngineArgs, EngineArgs
from vllm.benchmarks import latency, mm_processor, startup, throughput
from vllm.utils.argparse_utils import FlexibleArgumentParser

from tests.support.server import run_vllm
from vllm_sgl import plugin
from vllm_sgl.config import SGLConfig
from vllm_sgl.engine.carried import use_sgl
from vllm_sgl.engine.client import SGLAsyncLLM
from vllm_sgl.engine.start import starting_large, starting_small
from vllm_sgl.errors import StartRefused
from vllm_sgl.families import ACTIVE_ENV
from vllm_sgl.host.patch import unwrap
from vllm_sgl.host.start import device, small_engine
from vllm_sgl.host.start.async_llm import AsyncLLM


class Started(Exception):
    """Every check has passed: an engine would be started now."""


@pytest.fixture
def started():
    """The configs of engines that would have been started."""
    return []


@pytest.fixture
def start(qwen2_pair, monkeypatch, started):
    """Start a server's engine client up to its first engine."""

    def stop(config):
        started.append(config)
        raise Started

    monkeypatch.setattr(small_engine, "start_small", stop)
    # What fits does not depend on what else this machine does now.
    monkeypatch.setattr(device, "device", lambda: device.Device("cpu", "NUMA node 0", 24 << 30, 20 << 30))
    monkeypatch.setenv(ACTIVE_ENV, "")

    def start(small=qwen2_pair[0], large=qwen2_pair[1], sgl=None, client=SGLAsyncLLM, **arguments):
        config = SGLConfig.parse({"small": str(small), **(sgl or {})})
        arguments = {"max_model_len": 1024, "kv_cache_memory_bytes": 64 << 20, **arguments}
        large_args = EngineArgs(str(large), trust_remote_code=True, dtype="float32", **arguments)
        use_sgl(large_args, config)
        made = large_args.create_engine_config()
        client(made, None, False) if client is SGLAsyncLLM else client(made)

    return start


@pytest.fixture
def installed():
    """The plugin in vLLM's command line."""
    plugin.install()
    yield
    unwrap(EngineArgs, "add_cli_args")
    unwrap(EngineArgs, "from_cli_args")
    unwrap(AsyncLLM, "from_vllm_config")


@pytest.fixture
def small_copy(qwen2_pair, tmp_path):
    """A copy of the small checkpoint, to be changed."""
    return shutil.copytree(qwen2_pair[0], tmp_path / "small")


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def make_text_only(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config["llm_config"]))


def test_good_pair_is_started(start):
    with pytest.raises(Started):
        start()


def test_missing_small_model(start, tmp_path):
    with pytest.raises(ValueError, match=r"--sgl-small .*nowhere.* no model there"):
        start(small=tmp_path / "nowhere")


def test_text_model_cannot_guide(start, small_copy):
    make_text_only(small_copy)
    with pytest.raises(ValueError, match=r"(?s)--sgl-small .*InternVLChatModel.*received Qwen2ForCausalLM"):
        start(small=small_copy)


def test_text_model_cannot_be_guided(start, small_copy):
    make_text_only(small_copy)
    with pytest.raises(ValueError, match=r"InternVLChatModel.*received Qwen2ForCausalLM"):
        start(large=small_copy)


def test_other_vocabulary_is_started(start, small_copy):
    def swap(tokenizer):
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]

    edit(small_copy / "tokenizer.json", swap)
    with pytest.raises(Started):
        start(small=small_copy)


def test_other_chat_template_is_started(start, small_copy):
    def system_prompt(config):
        config["chat_template"] = "<|im_start|>system\nBe kind.<|im_end|>\n" + config["chat_template"]

    edit(small_copy / "tokenizer_config.json", system_prompt)
    with pytest.raises(Started):
        start(small=small_copy)


def window(tokens):
    """Turns a checkpoint's config into one of a decoder with a sliding window, as Phi-3's is."""

    def change(config):
        own = {"use_sliding_window": True, "sliding_window": tokens, "max_window_layers": 0}
        config["llm_config"].update(own)

    return change


@pytest.mark.parametrize("tokens", [1024, 262144])
def test_a_window_that_is_none_is_turned_off(start, small_copy, started, tokens):
    """vLLM would give such layers a KV cache that is not read."""
    edit(small_copy / "config.json", window(tokens))
    with pytest.raises(Started):
        start(small=small_copy)
    (config,) = started
    assert config.model_config.get_sliding_window() is None
    assert config.model_config.max_model_len == 1024


def test_a_window_that_matters(start, small_copy):
    edit(small_copy / "config.json", window(512))
    with pytest.raises(ValueError, match=r"see only the last 512 tokens, fewer than its context of 1024"):
        start(small=small_copy)


def test_a_context_inside_the_window(start, small_copy):
    edit(small_copy / "config.json", window(512))
    with pytest.raises(Started):
        start(small=small_copy, sgl={"small_args": {"max_model_len": 512}})


@pytest.mark.parametrize(
    ("key", "value"), [("max_dynamic_patch", 4), ("use_thumbnail", False), ("downsample_ratio", 0.25)]
)
def test_another_tiling_is_no_reason_to_refuse(start, small_copy, key, value):
    edit(small_copy / "config.json", lambda config: config.update({key: value}))
    with pytest.raises(Started):
        start(small=small_copy)


def test_a_context_that_takes_no_image(start):
    with pytest.raises(ValueError, match=r"its context of 16 tokens has no room for an image, .* are 16 or"):
        start(sgl={"small_args": {"max_model_len": 16}})


def test_on_the_command_line_a_refusal_is_its_text(start):
    """Python prints what a SystemExit says, and ends with 1."""
    plugin.install()
    try:
        with pytest.raises(SystemExit, match=r"^vllm serve: SGL cannot start: --sgl-small .* no room for an"):
            start(sgl={"small_args": {"max_model_len": 16}}, client=AsyncLLM.from_vllm_config)
    finally:
        for owner, name in (
            (EngineArgs, "add_cli_args"), (EngineArgs, "from_cli_args"), (AsyncLLM, "from_vllm_config"),
        ):  # fmt: skip
            unwrap(owner, name)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (starting_small, r"the small engine \(--sgl-small M\) did not start \(no .*\(SmallEngineCore pid"),
        (starting_large, r"the large engine \(M\) did not start \(no weights\).*\(EngineCore pid"),
    ],
)
def test_an_engine_that_does_not_start_is_named(block, words):
    with pytest.raises(StartRefused, match=words), block("M"):
        raise RuntimeError("no weights")


def test_unknown_argument_of_the_small_engine(start):
    with pytest.raises(ValueError, match=r"--sgl-small .*no_such_argument"):
        start(sgl={"small_args": {"no_such_argument": 1}})


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (
            {"kv_transfer_config": {"kv_connector": "ExampleConnector", "kv_role": "kv_both"}},
            "--kv-transfer-config",
        ),
        ({"kv_offloading_size": 1.0}, "--kv-transfer-config .or --kv-offloading-size."),
        (
            {"ec_transfer_config": {"ec_connector": "ECExampleConnector", "ec_role": "ec_producer"}},
            "--ec-transfer-config",
        ),
    ],
)
def test_caches_are_not_shared_with_other_engines(start, arguments, flag):
    with pytest.raises(ValueError, match=f"SGL does not share KV or encoder caches.*received {flag}"):
        start(**arguments)


@pytest.mark.parametrize(
    ("sgl", "arguments"),
    [
        ({"small_memory": 0.0001}, {}),
        ({"small_memory": "100MiB"}, {}),
        ({"small_memory": "4000GiB"}, {}),
        ({}, {"kv_cache_memory_bytes": 1 << 45}),
        ({}, {"kv_cache_memory_bytes": 1 << 10}),
    ],
)
def test_not_enough_memory(start, sgl, arguments):
    advice = r"Change --kv-cache-memory-bytes, --sgl-small-memory \(now .*\), --gpu-memory-utilization"
    with pytest.raises(ValueError, match=rf"not enough memory for both engines.*{advice}"):
        start(sgl=sgl, **arguments)


@pytest.mark.parametrize("size", ["1.5GiB", 0.2, "auto"])
def test_enough_memory(start, size):
    with pytest.raises(Started):
        start(sgl={"small_memory": size})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sgl-retention=1.5"], r"retention: expected a number in \(0, 1\].*received '1.5'"),
        (["--sgl-on-error=panic"], r"--sgl-on-error: expected 'fallback' or 'fail', received 'panic'"),
        (["--sgl-feature-cache=much"], r"--sgl-feature-cache: expected 'auto', a size .*received 'much'"),
        (['--sgl-profile=a={"retention": 2}'], r"--sgl-profile a: retention: expected .*1\].*, received 2"),
        (["--sgl-profile=off={}"], r"--sgl-profile off: the name is reserved"),
        (["--sgl-profile=a={}", "--served-model-name", "M", "M:a"], r"'M:a' is also one of --served-model-"),
        (["--data-parallel-size=2"], r"received --data-parallel-size 2: use 1"),
        (["--api-server-count=2"], r"received --api-server-count 2: use 1"),
    ],
)
def test_bad_flag(installed, flags, message):
    parser = FlexibleArgumentParser()
    parser.add_argument("--api-server-count", type=int)
    args = AsyncEngineArgs.add_cli_args(parser).parse_args(["--sgl-small=any", *flags])
    with pytest.raises(SystemExit, match=message):  # one line, no traceback, exit status 1
        AsyncEngineArgs.from_cli_args(args)


@pytest.mark.parametrize("command", [latency, throughput, startup, mm_processor])
def test_commands_that_build_vllms_own_llm(installed, command, qwen2_pair):
    parser = FlexibleArgumentParser()
    command.add_cli_args(parser)
    args = parser.parse_args([f"--model={qwen2_pair[1]}", f"--sgl-small={qwen2_pair[0]}"])
    with pytest.raises(SystemExit, match=r"^vllm: --sgl-small guides .*`vllm bench serve` .*vllm_sgl\.LLM"):
        EngineArgs.from_cli_args(args)


def test_bench_latency_ends_in_one_line(qwen2_pair):
    ended = run_vllm("bench", "latency", f"--model={qwen2_pair[1]}", f"--sgl-small={qwen2_pair[0]}")
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1].startswith("vllm: --sgl-small guides vLLM's server")
    assert "Traceback" not in ended.stdout


def test_a_server_without_an_engine_ends_in_one_line(qwen2_pair):
    ended = run_vllm("launch", "render", str(qwen2_pair[1]), f"--sgl-small={qwen2_pair[0]}")
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1].startswith("vllm: --sgl-small guides a server that generates; ")
    assert "Traceback" not in ended.stdout


def test_throughput_of_the_asynchronous_engine_is_guided(installed, qwen2_pair):
    parser = FlexibleArgumentParser()
    throughput.add_cli_args(parser)
    arguments = ["--async-engine", f"--model={qwen2_pair[1]}", f"--sgl-small={qwen2_pair[0]}"]
    engine_args = AsyncEngineArgs.from_cli_args(parser.parse_args(arguments))
    assert SGLConfig.of(engine_args.additional_config).small == str(qwen2_pair[0])
