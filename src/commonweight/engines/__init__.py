"""Tokens in, tokens out. Text, JSON and policy live above."""
