"""Errors that a user can correct."""


class UsageError(ValueError):
    """Bad data, arguments or output folder. The text says what was expected, what came and what to do."""
