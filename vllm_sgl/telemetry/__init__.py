"""What is said of requests: metrics, the request log, and how often two answers agree."""
