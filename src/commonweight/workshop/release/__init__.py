"""Releases: the gate, the release folder, and its verification."""
