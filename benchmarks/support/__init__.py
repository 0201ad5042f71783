"""What benchmarks of running servers share: child processes, requests, memory in use, pairs to serve."""
