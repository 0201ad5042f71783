"""Environments for the clients that the project itself does not need."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

FOLDER = Path("build/clients")


def python_of(client: str, requirement: str | None) -> str:
    """The Python that has a client; the first time its environment is made, which downloads it.

    Args:
        requirement: what pip is to install; None for what is here anyway.

    Raises:
        subprocess.CalledProcessError: pip could not install it, and said why.
    """
    if requirement is None:
        return sys.executable
    folder = FOLDER / client
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.is_file() or done.read_text() != requirement:
        print(f"installing {requirement} in {folder}", flush=True)
        venv.create(folder, clear=True)
        # On top of what is here: pip itself, and torch, of which there is a build for this machine. Not by a
        # plain line, which would leave out what the .pth files there do.
        below = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})"
        where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        Path(subprocess.check_output(where, text=True).strip(), "below.pth").write_text(below + "\n")
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--no-warn-conflicts", requirement], check=True
        )
        done.write_text(requirement)
    return str(python)
