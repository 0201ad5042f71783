"""Which visual tokens stay: policies, one per file, and the rewritten prompt."""
