"""Whether a small model can guide a large one, and how: the verdict, a check of layouts, the series known."""
