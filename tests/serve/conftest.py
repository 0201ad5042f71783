"""One server for most tests here, and one that may be broken. Starting one takes most of a minute."""

import json
from collections.abc import Iterator

import pytest

from tests.support.server import Server, settings

#: The small model's context here: enough for three full images, not for four and a long question.
SMALL_CONTEXT = 480
#: Beside the model itself, which has the server's settings.
PROFILES = {
    "fast": {"retention": 0.18, "guide_tokens": 8},
    "exits": {"exit_threshold": 0},
    "plain": {"enabled": 0},
}
#: Beside the server's log.
REQUEST_LOG = "requests.jsonl"


@pytest.fixture(scope="session")
def server(qwen2_pair, tmp_path_factory) -> Iterator[Server]:
    """Set up by flags; retention 0.35, early exit off; stores responses. Tests leave it as they found it.

    The one server that is started as users start theirs, with nothing imported before.
    """
    small, large = qwen2_pair
    folder = tmp_path_factory.mktemp("server")
    flags = [
        f"--sgl-small={small}", "--sgl-break-even=off", f"--sgl-log={folder / REQUEST_LOG}",
        "--sgl-guide-memory=0",  # tests ask the same again, and mean the guide to look again
        "--sgl-follow-ups=off",  # and that nothing is known, unless they ask for follow-ups
        "--sgl-small-args", json.dumps({"max_model_len": SMALL_CONTEXT}),
        *(f"--sgl-profile={name}={json.dumps(settings)}" for name, settings in PROFILES.items()),
        "--enable-mm-embeds", "--enable-scale-out",
        "--enable-auto-tool-choice", "--tool-call-parser=hermes",
    ]  # fmt: skip
    storing = {"VLLM_ENABLE_RESPONSES_API_STORE": "1"}
    with Server(large, folder / "server.log", flags, environment=storing, as_users=True) as running:
        yield running


@pytest.fixture(scope="module")
def fragile_server(qwen2_pair, tmp_path_factory) -> Iterator[Server]:
    """Set up by ``--additional-config``; its small engine may be stopped and killed."""
    small, large = qwen2_pair
    flags = settings(
        small=str(small), retention=0.5, guide_timeout=5, break_even="off", guide_memory=0, follow_ups="off"
    )
    with Server(large, tmp_path_factory.mktemp("fragile") / "server.log", flags) as running:
        yield running
