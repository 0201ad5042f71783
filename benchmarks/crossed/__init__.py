"""Guides that see images in other boxes than the large model: fewer tiles, another family.

    python -m benchmarks.crossed tilings [--questions 200] [--out FILE]

Sign questions, answered in transformers by the sign readers of ``models/``. The guide looks at the image in
its own way; its importance is carried to the large model's visual tokens (``vllm_sgl.visual.transfer``), and
the large model answers about the best of them, at their original positions.
"""
