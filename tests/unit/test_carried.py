"""Settings in ``additional_config`` guide an engine that a program builds, or end its start with one line."""

import os
import pickle

import pytest
from vllm import AsyncEngineArgs, EngineArgs
from vllm.config import VllmConfig
from vllm.engine.arg_utils import EngineArgs as Patched
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.llm_engine import LLMEngine

from vllm_sgl import plugin
from vllm_sgl.config import SGLConfig
from vllm_sgl.engine import carried
from vllm_sgl.engine.client import SGLAsyncLLM
from vllm_sgl.errors import StartRefused
from vllm_sgl.families.variant import UseVariant
from vllm_sgl.host.patch import unwrap
from vllm_sgl.host.start.async_llm import UnguidedLLM


@pytest.fixture
def unpatched_afterwards():
    """As in a process whose command line says nothing."""
    plugin.register()
    yield
    for owner, name in (
        (Patched, "create_engine_config"),
        (AsyncLLM, "__init__"),
        (LLMEngine, "__init__"),
        (AsyncLLM, "from_vllm_config"),
        (Patched, "add_cli_args"),
        (Patched, "from_cli_args"),
    ):
        unwrap(owner, name)


pytestmark = pytest.mark.usefixtures("unpatched_afterwards")


@pytest.fixture
def built(monkeypatch):
    """Classes and arguments of guided engines that were built; nothing is started."""
    found = []

    def record(self, **arguments):
        self._ended = True  # nothing to shut down
        found.append((type(self), arguments))

    monkeypatch.setattr(SGLAsyncLLM, "__init__", record)
    return found


@pytest.fixture
def arguments(qwen2_pair):
    def make(sgl=None, kind=AsyncEngineArgs, **more):
        settings = {"sgl": {"small": str(qwen2_pair[0]), **(sgl or {})}, "other": 1}
        model = {"trust_remote_code": True, "dtype": "float32", "max_model_len": 640, "enforce_eager": True}
        return kind(str(qwen2_pair[1]), additional_config=settings, **model, **more)

    return make


def test_a_config_is_made_for_the_guide(arguments):
    config = arguments({"retention": 0.2}).create_engine_config()
    assert config.model_config.hf_config.architectures == ["SGLInternVLChatModel"]
    assert config.additional_config["other"] == 1
    assert config.additional_config["sgl"]["retention"] == 0.2
    assert config.additional_config["sgl"]["guide_tokens"] == 32  # all of them, for every process


def test_other_configs_are_vllms(qwen2_pair):
    made = EngineArgs(str(qwen2_pair[1]), trust_remote_code=True, additional_config={"other": 1})
    assert made.create_engine_config().model_config.hf_config.architectures == ["InternVLChatModel"]
    assert not hasattr(AsyncLLM.__init__, "__vllm_sgl_original__")


@pytest.mark.parametrize("way", ["constructor", "positions", "from_vllm_config", "from_engine_args"])
def test_every_way_to_an_async_llm_is_guided(arguments, built, way):
    made = arguments()
    config = made.create_engine_config()
    build = {
        "constructor": lambda: AsyncLLM(vllm_config=config, executor_class=None, log_stats=False),
        "positions": lambda: AsyncLLM(config, None, False),
        "from_vllm_config": lambda: AsyncLLM.from_vllm_config(config),
        "from_engine_args": lambda: AsyncLLM.from_engine_args(made),
    }
    engine = build[way]()
    (found,) = built
    assert type(engine) is found[0] is SGLAsyncLLM
    assert found[1]["vllm_config"].additional_config["sgl"]["small"]


def test_a_class_of_the_programs_keeps_its_say(arguments, built):
    class Tracking(AsyncLLM):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.tracked = True

        def generate(self, *args, **kwargs):
            raise NotImplementedError

    engine = Tracking(arguments().create_engine_config(), None, False)
    assert engine.tracked
    assert [kind.__name__ for kind in type(engine).__mro__[1:4]] == ["Tracking", "SGLAsyncLLM", "AsyncLLM"]
    assert type(engine).generate is Tracking.generate
    assert len(built) == 1


def test_a_config_from_another_process_is_guided(arguments, built, monkeypatch):
    """Ray Serve makes it where the hardware is."""
    sent = pickle.dumps(arguments().create_engine_config())
    unwrap(AsyncLLM, "__init__")
    monkeypatch.delenv("SGL_VLLM_ACTIVE")
    AsyncLLM(pickle.loads(sent), None, False)
    assert [kind for kind, _ in built] == [SGLAsyncLLM]
    assert os.environ["SGL_VLLM_ACTIVE"] == "1"  # for the engine's own processes


def test_an_engine_process_opens_none(monkeypatch):
    monkeypatch.setattr(carried, "parent_process", lambda: "the server")
    assert pickle.loads(pickle.dumps(carried.Carried(SGLConfig(small="S")))).config == SGLConfig(small="S")
    assert not hasattr(AsyncLLM.__init__, "__vllm_sgl_original__")


def test_the_small_engine_is_no_guided_one(arguments, built, monkeypatch):
    config = arguments().create_engine_config()

    class Reached(Exception):
        """By vLLM's own constructor."""

    def renderer(config):
        raise Reached

    monkeypatch.setattr("vllm.v1.engine.async_llm.renderer_from_config", renderer)
    with pytest.raises(Reached):
        UnguidedLLM(config, None, False)
    assert built == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"no_such_key": 1}, r'additional_config\["sgl"\]: sgl_no_such_key: unknown key, received 1'),
        ({"retention": 7}, r"sgl_retention: expected a number in \(0, 1\]"),
        ({"policy": "nobody"}, "sgl_policy"),
    ],
)
def test_bad_settings_end_the_start_with_one_line(arguments, settings, words):
    with pytest.raises(StartRefused, match=words) as refused:
        arguments(settings).create_engine_config()
    assert "\n" not in str(refused.value)


def test_settings_that_are_no_object_are_refused(qwen2_pair):
    made = AsyncEngineArgs(str(qwen2_pair[1]), trust_remote_code=True, additional_config={"sgl": "small"})
    with pytest.raises(StartRefused, match="expected an object, received 'small'"):
        made.create_engine_config()


def test_vllms_llm_is_refused_with_what_to_use(qwen2_pair):
    import vllm

    with pytest.raises(StartRefused, match=r"use vllm_sgl\.LLM\(model, sgl_small=") as refused:
        vllm.LLM(
            str(qwen2_pair[1]),
            trust_remote_code=True,
            additional_config={"sgl": {"small": str(qwen2_pair[0])}},
        )
    assert "\n" not in str(refused.value)


def test_vllms_synchronous_engine_is_refused(arguments):
    with pytest.raises(StartRefused, match=r"use vllm_sgl\.LLM"):
        LLMEngine.from_engine_args(arguments(kind=EngineArgs), UsageContext.ENGINE_CONTEXT)


def test_a_config_that_was_put_together_by_hand_is_refused(arguments, qwen2_pair):
    carried.guide_engines()
    plain = EngineArgs(str(qwen2_pair[1]), trust_remote_code=True).create_engine_config()
    config = VllmConfig(model_config=plain.model_config, additional_config={"sgl": {"small": "S"}})
    with pytest.raises(StartRefused, match=r"make it by AsyncEngineArgs\(\.\.\., additional_config="):
        AsyncLLM(config, None, False)


def test_a_server_of_another_project_that_parses_vllms_flags(qwen2_pair, built, monkeypatch):
    """KServe's: flags of its own beside vLLM's, no middleware, engine arguments from its own parser."""
    small, large = map(str, qwen2_pair)
    command = ["serve.py", "--model_id", "m", "--model", large, "--trust-remote-code", "--sgl-small", small]
    monkeypatch.setattr("sys.argv", command)
    plugin.register()
    parser = FlexibleArgumentParser()
    parser.add_argument("--model_id", "--model-id")
    parser = AsyncEngineArgs.add_cli_args(parser)
    made = AsyncEngineArgs.from_cli_args(parser.parse_args(command[1:]))
    assert isinstance(made.hf_overrides, UseVariant)
    AsyncLLM.from_vllm_config(made.create_engine_config())
    assert [kind for kind, _ in built] == [SGLAsyncLLM]
