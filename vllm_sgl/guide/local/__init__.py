"""The guide in this process: a second vLLM engine with the small model, whose attention is watched."""
