"""A server and the same pair in this process, which ``test_engines.py`` holds against transformers."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.engines import Engines
from tests.support.server import Server

from .pairs import LARGE_TEMPLATE, other_tokenizer


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """(small, large): the small model has another tokenizer and template."""
    return other_tokenizer(tmp_path_factory.mktemp("translated"))


@pytest.fixture(scope="module")
def alone(pair):
    """The pair in this process."""
    engines = Engines(pair, max_model_len=1024)
    yield engines
    engines.shutdown()


@pytest.fixture(scope="module")
def walked(alone):
    """messages -> (outcome, the large model's answer text or the exit's), by the walk in this process."""

    return lambda *asked, **sgl: asyncio.run(alone.walk_to_the_end(*asked, **sgl))


@pytest.fixture(scope="module")
def server(pair, tmp_path_factory):
    """The server has a chat template of the large model by file, which is no template of the small one."""
    small, large = pair
    template = tmp_path_factory.mktemp("server") / "large.jinja"
    template.write_text(LARGE_TEMPLATE)
    flags = [
        f"--sgl-small={small}", "--sgl-break-even=off", f"--chat-template={template}",
        "--enable-auto-tool-choice", "--tool-call-parser=hermes",
    ]  # fmt: skip
    with Server(large, template.with_name("server.log"), flags) as running:
        yield running


@pytest.fixture
def clients():
    """Eight clients at once."""
    with ThreadPoolExecutor(8) as pool:
        yield pool
