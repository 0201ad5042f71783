"""Questions asked of a pair, and how their answers are scored; for calibrating, explaining and benchmarks."""
