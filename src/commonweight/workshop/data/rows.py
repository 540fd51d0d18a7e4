"""Rows of a dataset: what they hold, where they come from, and the id that their content has."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from commonweight.lineage.digests import digest_json
from commonweight.lineage.errors import WorkshopError

Kind = Literal["text", "messages", "preference", "prompt"]
Role = Literal["system", "user", "assistant"]
Split = Literal["train", "validation"]

ID_DIGITS = 16
"""Hex digits of a row id: the first of its content's SHA-256."""


class DataError(WorkshopError):
    """A source, a row or a dataset folder is not as it should be; the message is one sentence without its text."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Content:
    """What a row holds, without its origin."""

    kind: Kind
    text: str | None = None
    """Of ``text`` rows."""
    messages: tuple[Message, ...] | None = None
    """The conversation; of ``preference`` and ``prompt`` rows what is to be answered."""
    chosen: tuple[Message, ...] | None = None
    """Of ``preference`` rows: the better continuation."""
    rejected: tuple[Message, ...] | None = None
    given: int = 0
    """Of ``messages`` rows: characters at the beginning of the last answer that are given, and never learned."""

    def list_messages(self) -> Iterator[Message]:
        """All messages, those of both continuations too."""
        for part in (self.messages, self.chosen, self.rejected):
            yield from part or ()

    def count_characters(self) -> int:
        """Characters of the text or of all messages."""
        return len(self.text or "") + sum(len(message.content) for message in self.list_messages())

    def compute_row_id(self) -> str:
        """An id that equal contents share, wherever they come from.

        Raises:
            UnicodeEncodeError: the text has lone surrogates, which no file of Unicode text has.
        """
        fields: dict[str, object] = {
            "kind": self.kind,
            "text": self.text,
            "messages": _list_pairs(self.messages),
            "chosen": _list_pairs(self.chosen),
            "rejected": _list_pairs(self.rejected),
        }
        if self.given:
            fields["given"] = self.given
        return digest_json(fields)[:ID_DIGITS]


@dataclass(frozen=True, slots=True)
class Row:
    """A row with its provenance."""

    row_id: str
    content: Content
    source: str
    licence: str
    """SPDX identifier or ``LicenseRef-`` name."""
    generator: str | None = None
    """The model that wrote it; None: people did."""
    principle: str | None = None
    """Id of the principle that it teaches."""
    split: Split = "train"


def draw_fraction(*parts: str) -> float:
    """A number from 0 up to 1 that looks random and depends on the parts alone."""
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2.0**53


def _list_pairs(messages: tuple[Message, ...] | None) -> list[list[str]] | None:
    return None if messages is None else [[message.role, message.content] for message in messages]
