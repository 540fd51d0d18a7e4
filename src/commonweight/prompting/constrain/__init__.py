"""Structured output: grammars for tool calls, JSON schemas, reasoning budgets and citations."""
