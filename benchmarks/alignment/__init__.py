"""Generation of training data compared with transformers."""
