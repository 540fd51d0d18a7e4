"""Incremental output parsing: generated tokens to text, reasoning, tool calls and citations."""
