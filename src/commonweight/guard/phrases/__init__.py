"""Exact phrases: found in whole texts, in tool calls, and on streams."""
