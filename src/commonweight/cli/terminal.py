"""What the commands share about the terminal."""

from rich.console import Console


class UserError(Exception):
    """Something that the person at the terminal can put right; the message says how."""


def plain_console(*, stderr: bool = False) -> Console:
    """A console that shows text as it is: brackets and :words: in paths and answers are no markup."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)
