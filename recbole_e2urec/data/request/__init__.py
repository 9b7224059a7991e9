"""Deletion requests: who or what is to be forgotten, read from a file or from a filter."""
