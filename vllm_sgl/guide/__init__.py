"""Who looks at a request first: importance, an answer, and how sure of it the guide is."""
