"""A pair and its server. The pair in this process is held against transformers in ``test_engines.py``."""

import pytest

from tests.support.server import Server

from .pairs import LARGE_TEMPLATE, other_tokenizer


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """(small, large): the small model has another tokenizer and template."""
    return other_tokenizer(tmp_path_factory.mktemp("translated"))


@pytest.fixture(scope="module")
def server(pair, tmp_path_factory):
    """The server has a chat template of the large model by file, which is no template of the small one."""
    small, large = pair
    template = tmp_path_factory.mktemp("server") / "large.jinja"
    template.write_text(LARGE_TEMPLATE)
    flags = [
        f"--sgl-small={small}", "--sgl-break-even=off", "--sgl-follow-ups=off", f"--chat-template={template}",
        "--enable-auto-tool-choice", "--tool-call-parser=hermes",
    ]  # fmt: skip
    with Server(large, template.with_name("server.log"), flags) as running:
        yield running
