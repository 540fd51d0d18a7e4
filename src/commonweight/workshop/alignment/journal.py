"""The journal of a stage: what a model answered so far, on disk before anything else is asked."""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from commonweight.workshop.alignment.settings import AlignmentError


class Reply(msgspec.Struct, frozen=True):
    """What a model answered to one question."""

    number: int
    """Of the question."""
    text: str
    ending: str
    """Stop reason of the answer: ``end_turn``, ``max_tokens``, ...; of a question that was not asked, why."""
    tokens: int = 0
    """Tokens of the answer."""
    asked: bool = True
    """Whether the question fitted the model."""

    @property
    def is_cut(self) -> bool:
        """Whether the answer did not end by itself."""
        return self.ending != "end_turn"


class Journal:
    """Replies by the number of their question, in a file that only its owner reads; lines are only added.

    Raises:
        AlignmentError: the file is damaged. A last line that is not whole is cut off: a kill left it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.replies: dict[int, Reply] = {}
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(path, len(whole))
        for line in whole.splitlines():
            try:
                reply = msgspec.json.decode(line, type=Reply)
            except msgspec.DecodeError as error:
                raise AlignmentError(
                    f"The file {path.name} of {path.parent.name} is damaged; remove it, and begin the stage again."
                ) from error
            self.replies[reply.number] = reply

    def add(self, replies: Iterable[Reply]) -> None:
        """Write replies to the disk."""
        fresh = list(replies)
        lines = b"".join(msgspec.json.encode(reply) + b"\n" for reply in fresh)
        with os.fdopen(os.open(self._path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "ab") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        self.replies.update((reply.number, reply) for reply in fresh)
