"""Training: tokenizer, pretraining and supervised fine-tuning. Torch is imported only here and in ``export``."""
