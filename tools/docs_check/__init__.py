"""The parts of `tools/check_docs.py`: pages into pieces, pieces into commands, commands against parsers."""
