"""Training, resuming and unlearning loops."""
