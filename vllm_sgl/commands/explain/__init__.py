"""``vllm-sgl explain``: what the small model looked at, what was kept, and what came of it.

``asking`` asks both models, ``picture`` draws, and ``explanation`` holds the values in between, which are
also the JSON.
"""
