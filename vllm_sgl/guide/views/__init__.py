"""How a guide sees a request in its own tokens: translated prompts, importance carried over."""
