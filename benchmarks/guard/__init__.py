"""Texts that the guard is measured with."""
