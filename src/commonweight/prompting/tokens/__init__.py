"""Tokenization: the model's tokenizer, escaping of special tokens, replay of the token ids of earlier answers."""
