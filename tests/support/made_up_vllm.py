"""A small package as vLLM might be, written to disk for the tests of tools/check_seams.py."""

from pathlib import Path
from textwrap import dedent

#: The package's files: names made lazily, re-exported, inherited, and set by methods.
VLLM = {
    "vllm/__init__.py": """
        _WHERE = {"Params": ".params:Params", "Engine": "vllm.engine.engine"}

        def __getattr__(name):
            raise NotImplementedError
    """,
    "vllm/_version.py": "__version__ = version = '1.0'\n",
    "vllm/envs.py": """
        if TYPE_CHECKING:
            VLLM_THREADS: int = 1
    """,
    "vllm/params.py": """
        from dataclasses import dataclass, field

        @dataclass
        class Base:
            n: int = 1

        @dataclass
        class Params(Base):
            stop: list[str] = field(default_factory=list)
            max_tokens: int | None = None

            def clone(self) -> "Params":
                return self
    """,
    "vllm/text/__init__.py": "from .tokens import *\n",
    "vllm/text/tokens.py": """
        def load(path, strict=False):
            pass
    """,
    "vllm/engine/__init__.py": """
        from vllm.engine.engine import Engine

        ENGINE = Engine("model")
    """,
    "vllm/engine/engine.py": """
        from vllm.params import Params

        class Client:
            def abort(self, request_id, internal=False):
                pass

        class Renderer:
            cache: dict[str, Params]

        class Engine(Client):
            def __init__(self, model, seed=0, **options):
                self.renderer: Renderer = make()
                self.size = 1

            @classmethod
            def build(cls, config, usage=None):
                pass

            async def generate(self, prompt, params, priority=0):
                yield prompt

            @property
            def stopped(self) -> bool:
                return False
    """,
}


def write(root: Path, files: dict[str, str]) -> Path:
    """Write files, less their common indentation; returns the root."""
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text).lstrip("\n"))
    return root
