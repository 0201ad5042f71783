"""A sign reader of another family: Qwen2-VL's architecture, images at their own resolution, M-RoPE.

`python -m tools.sign_reading.native --help` trains it. It starts from the small InternVL reader's weights
where shapes allow.
"""
