"""A model in use: a folder, requests on it one after the other, recommendations."""
