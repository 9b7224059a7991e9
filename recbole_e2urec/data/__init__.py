"""Rows, histories, prompts, tokens, forget requests: everything before a model."""
