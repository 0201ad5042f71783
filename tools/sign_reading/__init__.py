"""Sign reading: a seeded data set of noisy scenes with coloured signs, and questions that a VLM can answer
only by reading a few per cent of its visual tokens."""

from .split import Example, example, write

__all__ = ["Example", "example", "write"]
