"""From importance to fewer visual tokens: which to keep (a policy per file), and the rewritten prompt."""
