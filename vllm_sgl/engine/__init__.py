"""Both engines as one client: start-up, memory, the walk of every request."""
