"""One short script per stock client: asks about a picture, shows the answer and what SGL reports of it.

They need a server, and run from this repository's root: ``python -m examples.clients.with_openai``.
"""
