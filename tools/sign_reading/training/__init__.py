"""Trains the shipped pair of models: `python -m tools.sign_reading.training --help`."""
