"""Harmless texts of agents, system prompts and tool results: which files they are of, and how they are cut."""
