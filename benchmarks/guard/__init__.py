"""The guard: business charters and marks to measure it with, and what it costs."""
