"""Deletion requests: what to forget, read from a file or a filter, or drawn at random."""
