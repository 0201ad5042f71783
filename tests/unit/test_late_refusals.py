"""A guide that turns out to be none when both engines run already: one line on the command line, and who asks
in Python gets a ValueError."""

from types import SimpleNamespace

import pytest

from vllm_sgl.config import CONFIG_KEY, SGLConfig
from vllm_sgl.engine.client import SGLAsyncLLM
from vllm_sgl.errors import GuideError, StartRefused
from vllm_sgl.host.request.output import EngineDeadError
from vllm_sgl.host.start import async_llm
from vllm_sgl.host.start.async_llm import AsyncLLM

BLIND = "Call to collective_rpc method failed: the small model has attention sinks, whose view is another"


@pytest.fixture
def client(monkeypatch):
    """A client whose engines run."""

    async def tasks(self):
        return ("generate",)

    monkeypatch.setattr(AsyncLLM, "get_supported_tasks", tasks)
    made = SGLAsyncLLM.__new__(SGLAsyncLLM)
    made._ended = True
    made._ready = None
    made.sgl_config = SGLConfig.parse({"small": "S"})
    return made


def failing(error):
    async def start():
        raise error

    return start


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Exception(BLIND), r"\(--sgl-small S\) started, but cannot guide: the small model has attention"),
        (NotImplementedError("no K there"), r"cannot guide: no K there\. .* \(SmallEngineCore pid=...\):"),
        (GuideError("guide_failed", "no answer"), "cannot guide: no answer"),
        (RuntimeError(), "cannot guide: RuntimeError"),
        (EngineDeadError(), r"the large engine died before the first request\. .* \(EngineCore pid=...\)"),
    ],
)
async def test_the_engine_is_named_and_the_remedy(client, error, words):
    client._start = failing(error)
    with pytest.raises(StartRefused, match=words) as refused:
        await client.get_supported_tasks()
    assert refused.value.__cause__ is error


async def test_a_guide_that_works_is_asked_once(client):
    started = []

    async def start():
        started.append(1)
        assert await client.get_supported_tasks() == ("generate",)  # as calibration's requests do

    client._start = start
    assert await client.get_supported_tasks() == ("generate",)
    assert await client.get_supported_tasks() == ("generate",)
    assert started == [1]


async def test_a_server_ends_with_its_text(client):
    client._start = failing(Exception(BLIND))
    config = SimpleNamespace(additional_config={CONFIG_KEY: {"small": "S"}})
    build = async_llm._choosing_class(lambda: SGLAsyncLLM, StartRefused, lambda cls, config: client)
    engine = build(AsyncLLM, config)
    with pytest.raises(SystemExit, match=r"^vllm serve: SGL cannot start: the small engine .* attention"):
        await engine.get_supported_tasks()
