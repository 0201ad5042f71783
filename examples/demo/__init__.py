"""Serve a pair of models with SGL, ask it about pictures with the OpenAI client, print what happened.

    python -m examples.demo [--large MODEL --small MODEL] [--image FILE ... --question TEXT]

Every question is asked with SGL off, with pruning, and with pruning and early exit. Then `vllm-sgl explain`
draws what the small model looked at. Pictures and the server's log go to --out.
"""

from .shipped import EXIT_THRESHOLD, LARGE, RETENTION, SMALL

__all__ = ["EXIT_THRESHOLD", "LARGE", "RETENTION", "SMALL"]
