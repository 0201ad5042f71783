"""What the user of the command can put right."""


class UsageError(ValueError):
    """Bad input. The text says what was expected, what came and what to do."""
