"""`python -m vllm_sgl` is `vllm-sgl`."""

import sys

from vllm_sgl.cli import main

if __name__ == "__main__":
    sys.exit(main())
