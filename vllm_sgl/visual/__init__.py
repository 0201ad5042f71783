"""What a visual token is and where it lies: no model, no engine."""
