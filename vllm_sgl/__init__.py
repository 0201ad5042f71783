"""vllm-sgl: a small vision-language model guides a large one inside vLLM.

Public surface: :class:`vllm_sgl.LLM`, :class:`vllm_sgl.SGLConfig` and ``__version__``. Importing the
package imports neither torch nor vLLM; the names below are loaded on first use.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = ["LLM", "SGLConfig", "__version__"]

if TYPE_CHECKING:
    from vllm_sgl.config import SGLConfig
    from vllm_sgl.engine.offline import LLM

_LAZY = {"LLM": "vllm_sgl.engine.offline", "SGLConfig": "vllm_sgl.config"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
