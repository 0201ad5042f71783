"""Pairs whose models have prompts of their own."""
