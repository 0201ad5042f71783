"""The subcommands of ``vllm-sgl``, one per folder."""
