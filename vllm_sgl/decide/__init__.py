"""Bypass, exit or prune: pure rules over values."""
