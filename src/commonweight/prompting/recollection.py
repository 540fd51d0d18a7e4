"""What was generated, so that it is the same tokens again when it comes back in a conversation's history.

The same text has many tokenisations, and a template may space a call differently than the model did. A cached
prefix ends where the tokens differ; so an answer is remembered with the prompt that it followed, and takes its
place in the next prompt token by token.
"""

import hashlib
import json
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

from commonweight.messages.content import TextBlock, ToolUseBlock
from commonweight.messages.response import OutputText, OutputToolUse

MAX_TOKENS = 4_000_000
"""Tokens remembered, of all conversations."""


class Origin(NamedTuple):
    """The text of a prompt, by its length and digest."""

    length: int
    digest: bytes

    @classmethod
    def of(cls, text: str) -> "Origin":
        """The origin that a prompt's text is."""
        return cls(len(text), _hashed(text).digest())


@dataclass(frozen=True)
class Answer:
    """One answer as it was generated."""

    origin: Origin
    token_ids: Sequence[int]
    """Without the token that ended the turn."""
    reasoning: str


class Recollection:
    """Remembers answers, the latest used for longest. Safe to use from several threads."""

    def __init__(self, max_tokens: int = MAX_TOKENS) -> None:
        self._answers: OrderedDict[tuple[str, bytes], Answer] = OrderedDict()
        self._room = max_tokens
        self._lock = Lock()

    def remember(self, tenant: str, key: bytes, answer: Answer) -> None:
        """Keep an answer under the key of its content."""
        kept = Answer(answer.origin, array("i", answer.token_ids), answer.reasoning)
        with self._lock:
            self._forget((tenant, key))
            self._answers[tenant, key] = kept
            self._room -= len(kept.token_ids)
            while self._room < 0:
                self._forget(next(iter(self._answers)))

    def recall(self, tenant: str, keys: Iterable[bytes], text: str) -> list[Answer]:
        """The answers with these keys whose prompts ``text`` begins with, in the order of their places."""
        with self._lock:
            found = [answer for key in keys if (answer := self._answers.get((tenant, key)))]
            for key in keys:
                if (tenant, key) in self._answers:
                    self._answers.move_to_end((tenant, key))
        known: list[Answer] = []
        hashed, done = _hashed(""), 0
        for answer in sorted(found, key=lambda answer: answer.origin.length):
            length = answer.origin.length
            hashed.update(text[done:length].encode("utf-8", "surrogatepass"))
            done = length
            if hashed.copy().digest() == answer.origin.digest:
                known.append(answer)
        return known

    def _forget(self, key: tuple[str, bytes]) -> None:
        if forgotten := self._answers.pop(key, None):
            self._room += len(forgotten.token_ids)


def content_key(blocks: Sequence[object]) -> bytes:
    """What an answer is found by: its text and calls, in the answer and in the history alike.

    Reasoning does not count: it may come back without its text.
    """
    parts: list[object] = []
    for block in blocks:
        match block:
            case TextBlock(text=text) | OutputText(text=text):
                if text:
                    parts.append(text)
            case ToolUseBlock() | OutputToolUse():
                parts.append([block.id, block.name, block.input])
    return _hashed(json.dumps(parts, ensure_ascii=True)).digest()


def _hashed(text: str) -> "hashlib.blake2b":
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16)
