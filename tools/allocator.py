"""tcmalloc, which vLLM's CPU worker asks for by a warning, where it is installed.

glibc gives each large activation back to the kernel, and the pages of the next one are cleared anew: almost
half of a large batch's time on two cores, and none of a small one's. (To let glibc keep what is freed,
``MALLOC_MMAP_MAX_=0``, is no way out: its heap then grew until memory was full.)
"""

import ctypes.util
from collections.abc import Mapping

_LIBRARY = "tcmalloc_minimal"
_PRELOAD = "LD_PRELOAD"


def preloaded(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that give a server tcmalloc; none where it is not installed, or preloaded already.

    Args:
        environment: that the server is to have besides.
    """
    given, found = environment.get(_PRELOAD, ""), ctypes.util.find_library(_LIBRARY)
    if found is None or "libtcmalloc" in given:
        return {}
    return {_PRELOAD: f"{found}:{given}" if given else found}


def named(environment: Mapping[str, str]) -> str:
    """What a server with this environment allocates with, for reports."""
    if "libtcmalloc" in environment.get(_PRELOAD, ""):
        return "tcmalloc"
    return "glibc's, which makes large batches slow (tcmalloc is not installed: libtcmalloc-minimal4)"
