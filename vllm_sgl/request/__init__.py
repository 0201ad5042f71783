"""What one request is: its settings, its facts, where it came from, what its parameters rule out."""
