"""What runs every client: names and environments. The scripts ask servers: tests/serve/test_clients.py."""

import subprocess
import sys

import pytest

from examples.clients import __main__, environments


def test_names_that_are_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["clients", "openai", "curl"])
    with pytest.raises(SystemExit, match="2"):
        __main__.main()
    assert "received curl" in capsys.readouterr().err


def test_every_script_is_run():
    scripts = {path.stem for path in environments.Path(__main__.__file__).parent.glob("with_*.py")}
    assert {client.script for client in __main__.CLIENTS.values()} == scripts


def test_an_environment_is_made_once_on_top_of_this_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    assert environments.python_of("own", None) == sys.executable
    # Installed here, so that nothing is downloaded.
    python = environments.python_of("other", "pydantic")
    assert "installing pydantic" in capsys.readouterr().out
    where = subprocess.check_output(
        [python, "-c", "import pydantic, sys; print(sys.prefix, pydantic.__file__)"]
    )
    prefix, file = where.decode().split()
    assert prefix == str(tmp_path / "other")
    assert file.startswith(sys.prefix)
    assert environments.python_of("other", "pydantic") == python
    assert capsys.readouterr().out == ""


def test_what_pip_cannot_install_does_not_count_as_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    with pytest.raises(subprocess.CalledProcessError):
        environments.python_of("other", "not a requirement")
    assert not (tmp_path / "other" / "installed").exists()
