"""Metrics, the request log, and how often two answers agree."""
