"""The guard: texts and marks to measure it with, and what it costs."""
