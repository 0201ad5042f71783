"""How a guide sees another model's requests: translated prompts, importance carried over."""
