"""Heads: compiled charters in files, the scores that they give texts and states, and their thresholds."""
