"""Exit scores: how much the small model's answer is trusted. One file per score."""
