"""What ``vllm-sgl`` can do beside serving, one subcommand a folder."""
