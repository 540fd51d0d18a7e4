"""Text to token ids: the model's tokenizer, escaping of untrusted text, exact replay of earlier answers."""
