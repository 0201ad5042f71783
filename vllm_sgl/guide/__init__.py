"""The small model: one greedy, watched pass over a request gives importance, answer and confidence."""
