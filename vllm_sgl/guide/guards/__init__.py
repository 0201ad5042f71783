"""What protects requests from a guide: a limit, a breaker, a restart."""
