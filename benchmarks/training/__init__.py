"""Training compared with transformers' ``Trainer``."""
