"""Texts of a request: where each stands, the views, windows and sentences that are read of it, its language."""
