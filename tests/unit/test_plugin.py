"""Which command lines ask for SGL."""

import os

import pytest

from vllm_sgl import plugin

ASKING = [
    ["--sgl-small", "S"],
    ["--sgl-small=S"],
    ["--sgl_small", "S"],
    ["--sgl-shadow"],
    ["--max-model-len", "64", "--sgl-retention", "0.5"],
    ["--additional-config", '{"sgl": {"small": "S"}}'],
    ['--additional-config={"sgl": {"small": "S"}}'],
    ['--additional_config={"sgl": {"small": "S"}}'],
    ["--additional-config.sgl.small", "S"],
    ["--help"],
    ["-h"],
    ["--help=all"],
]
SILENT = [
    [],
    ["--max-model-len", "64"],
    ["--additional-config", "{}"],
    ["--additional-config", '{"other": 1}'],
    ["--served-model-name", "sgl-model"],
    ["--chat-template", "--sgl.jinja"],
    ["--additional-config"],
]


@pytest.mark.parametrize("arguments", ASKING, ids=" ".join)
def test_asks(arguments):
    assert plugin.asks_for_sgl(["vllm", "serve", "MODEL", *arguments])


@pytest.mark.parametrize("arguments", SILENT, ids=" ".join)
def test_does_not_ask(arguments):
    assert not plugin.asks_for_sgl(["vllm", "serve", "MODEL", *arguments])


def test_program_name_does_not_ask():
    assert not plugin.asks_for_sgl(["--sgl-small"])


@pytest.mark.parametrize("form", [["--config", "{}"], ["--config={}"]], ids=["two words", "one word"])
@pytest.mark.parametrize(
    ("text", "asks"),
    [("sgl-small: S\n", True), ("additional-config:\n  sgl: {small: S}\n", True), ("port: 1\n", False)],
    ids=["flag", "additional config", "nothing of ours"],
)
def test_config_file(tmp_path, form, text, asks):
    file = tmp_path / "serve.yaml"
    file.write_text(text)
    arguments = [part.format(file) for part in form]
    assert plugin.asks_for_sgl(["vllm", "serve", *arguments]) is asks


def test_missing_config_file_is_vllms_to_report(tmp_path):
    assert not plugin.asks_for_sgl(["vllm", "serve", "--config", str(tmp_path / "no-such.yaml")])


@pytest.mark.parametrize("active", [False, True])
def test_variants_are_registered_where_a_parent_process_says_so(monkeypatch, active):
    from vllm_sgl import families

    registered = []
    monkeypatch.setattr(families, "register_variants", lambda: registered.append(1))
    monkeypatch.setattr("sys.argv", ["vllm", "serve", "MODEL"])
    monkeypatch.delenv(families.ACTIVE_ENV, raising=False)
    if active:
        monkeypatch.setenv(families.ACTIVE_ENV, "1")
    plugin.register()
    assert bool(registered) is active
    assert (families.ACTIVE_ENV in os.environ) is active


def test_worker_processes_are_not_patched(monkeypatch):
    """They inherit the command line, but parse none."""
    from vllm_sgl.host.start import engine_args

    installed = []
    monkeypatch.setattr(engine_args, "install", lambda: installed.append(1))
    monkeypatch.setattr(plugin, "parent_process", lambda: "the server")
    monkeypatch.setattr("sys.argv", ["vllm", "serve", "MODEL", "--sgl-small", "S"])
    plugin.register()
    assert installed == []
