"""How fast the kernels are, against their references and against what the device can do.

    python -m benchmarks.kernels [--only NAME] [--out FILE]

An operation is verified first; one that disagrees with its naive reference gets no number, and the exit
status is 1. Times are medians on CUDA events with a cold L2 cache. Operations are registered in
``operations.py``. Without a CUDA GPU only the references run, on small shapes.
"""
