"""Everything before the model: rows, histories, prompts, tokens and forget requests."""
