"""Which models make pairs, and how: ``vllm-sgl pairs``."""
