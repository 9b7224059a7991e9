"""Runs: one unlearning run, comparisons of methods, searches for settings, and looking inside."""
