"""Command line: parses options and prints results."""

from commonweight.cli.app import main

__all__ = ["main"]
