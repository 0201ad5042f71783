"""Small tensor work beside an event loop."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """The block's tensor work runs on the thread that it is called from; a decorator, too.

    A server's process is no place for OpenMP's threads: what they save of a millisecond, they wait for more
    by spinning, on cores that engines and other requests need.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
