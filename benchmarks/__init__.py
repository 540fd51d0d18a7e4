"""Commonweight beside llama.cpp's own server: the same work in one run, reported as ratios."""
