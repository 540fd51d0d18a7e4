"""Constrained decoding: grammars for tool calls, JSON schemas, reasoning budgets and citations."""
