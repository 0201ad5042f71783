"""Rendering: conversations, the processor cache, prompts made up for probes, media files."""
