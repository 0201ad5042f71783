"""The only room that reaches into vLLM's internals (vLLM 0.32 and 0.33); one vLLM class or seam per file."""
