"""One command that checks and measures vllm-sgl on one GPU: `python -m benchmarks.gpu_check`.

| section | what it answers |
|---|---|
| kernels | do the Triton kernels agree with their references here, and how fast are they |
| importance | is the guide's importance that of transformers, per backend, runner and graph mode |
| serve | latency and throughput of a true-size pair (dummy weights) against plain vLLM |
| memory | peak device memory of both sides against the published figures |
| defaults | memory with vLLM's default settings; do bursts of pruned images stay within what was profiled |

Every section runs its work in child processes, reports `ok` or `failed`, and never stops the next one.
`--smoke` runs the same code on a CPU with tiny models: it proves the plumbing, its figures mean nothing.
"""
