"""Serve a pair of models with SGL, ask it about pictures with the OpenAI client, print what happened.

    python -m examples.demo [--large MODEL --small MODEL] [--image FILE ... --question TEXT]

Every question is asked of the large model alone (plain), with pruning, with pruning that leaves whole tiles
out, and with early exits as well; a table says how many answers were right and how long they took. Then
`vllm-sgl explain` draws what the small model looked at. Pictures and the server's log go to --out.

Without models of your own the shipped pair is asked, widened so that it costs what a large and a small model
cost; its answers are the same.
"""

from .shipped import EXIT_THRESHOLD, LARGE, RETENTION, SMALL

__all__ = ["EXIT_THRESHOLD", "LARGE", "RETENTION", "SMALL"]
