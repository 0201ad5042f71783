"""SGL inside ``vllm serve``: flags, the engine client, response fields, metrics."""
