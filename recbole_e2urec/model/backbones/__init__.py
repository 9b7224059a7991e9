"""Language models and their adapters; the only place that imports transformers and peft."""
