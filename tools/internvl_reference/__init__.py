"""Chat-format InternVL checkpoints in transformers' own classes: the reference outside of vLLM."""
