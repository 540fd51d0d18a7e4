"""The command ``commonweight``."""

from commonweight.cli.app import main

__all__ = ["main"]
