"""Native resolution: is a crop of the image worth more than tokens of all of it?

    python -m benchmarks.native_crops [--questions 400] [--out FILE]

A model that encodes an image as a whole (Qwen2-VL) can save nothing of its vision encoder by dropping tokens
that are encoded already. A crop can: only the box that the guide looks at is encoded, and its tokens keep the
positions that they have in the whole image. The sign reader of that shape, ``models/signs-native``, answers
questions both ways, in transformers, guided by ``models/signs-small`` (carried over by area, as in
``benchmarks.crossed``); costs are operations in the proportions of real models (``cost.py``), so that answers
can be compared at equal cost.

What a crop costs in accuracy is twofold: its tokens are one box and not the best ones, and they do not see
what lies around it.
"""
