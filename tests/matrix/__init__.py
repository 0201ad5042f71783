"""One matrix for every family: a family joins by one line in ``cases.py``."""
