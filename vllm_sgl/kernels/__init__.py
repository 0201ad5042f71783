"""Operations that this project owns, one folder each: a ``naive`` reference, and kernels beside it.

Installed as ``vllm_sgl.kernels``. Nothing here knows vLLM: inputs are tensors in the field's usual layout.
"""
