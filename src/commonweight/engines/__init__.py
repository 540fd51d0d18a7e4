"""Inference engines: token ids in, token ids out. Text, JSON and policy belong to the layers above."""
