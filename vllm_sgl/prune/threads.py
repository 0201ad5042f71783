"""Small tensor work beside an event loop."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the tensor work of the block on the calling thread; also a decorator.

    OpenMP threads cost more in spinning than they save on tensors this small, and they take cores that
    engines and other requests need.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
