"""Guides look at a request first: importance, an answer, and how sure the guide is of it."""
