"""Answers prompts in a process that ends after its second batch: ``killed_generation.py DATA OUTPUT``."""

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from alignment_rows import generate

from commonweight.workshop.alignment import journal
from commonweight.workshop.alignment.journal import Reply

add = journal.Journal.add
batches: list[int] = []


def add_twice(self: journal.Journal, replies: Iterable[Reply]) -> None:
    """Write a batch; end this process after the second, with no way to clean up."""
    add(self, replies)
    batches.append(1)
    if len(batches) == 2:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    journal.Journal.add = add_twice  # type: ignore[method-assign]
    generate(Path(sys.argv[1]), Path(sys.argv[2]))
