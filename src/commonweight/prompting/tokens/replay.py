"""What was generated, so that it is the same tokens again when it comes back in a conversation's history.

The same text has many tokenisations, and a template may space a call differently than the model did. A cached
prefix ends where the tokens differ; so an answer is remembered with the prompt that it followed, and takes its
place in the next prompt token by token.
"""

import hashlib
import json
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from threading import Lock
from typing import NamedTuple

from commonweight.messages.content import (
    FallbackBlock,
    RedactedThinkingBlock,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
)
from commonweight.messages.request import MessageParam
from commonweight.messages.response import OutputText, OutputThinking, OutputToolUse

MAX_TOKENS = 4_000_000
"""Tokens remembered, of all conversations."""
MAX_ALIKE = 64
"""Answers remembered that say the same; "Done." is said often."""
_OVERHEAD = 100
"""What remembering an answer costs besides its tokens, in tokens."""


class Origin(NamedTuple):
    """The text that an answer followed, by its length and digest."""

    length: int
    digest: bytes

    @classmethod
    def of(cls, text: str) -> "Origin":
        """The origin that a text is."""
        return cls(len(text), _hashed(text).digest())


@dataclass(frozen=True)
class Answer:
    """One answer as it was generated."""

    origin: Origin
    token_ids: Sequence[int]
    """Without the token that ended the turn."""
    reasoning: str = ""
    calls: int = 0
    """How many tools it calls."""


class Recollection:
    """Remembers answers, the latest used for longest. Safe to use from several threads."""

    def __init__(self, max_tokens: int = MAX_TOKENS) -> None:
        self._answers: OrderedDict[tuple[str, bytes, Origin], Answer] = OrderedDict()
        # By what they say: where each was said, the latest last.
        self._origins: dict[tuple[str, bytes], dict[Origin, None]] = {}
        self._room = max_tokens
        self._lock = Lock()

    def remember(self, tenant: str, key: bytes, answer: Answer) -> None:
        """Keep an answer under the key of its content."""
        kept = replace(answer, token_ids=array("i", answer.token_ids))
        with self._lock:
            self._forget(tenant, key, kept.origin)
            self._answers[tenant, key, kept.origin] = kept
            origins = self._origins.setdefault((tenant, key), {})
            origins[kept.origin] = None
            self._room -= _cost(kept)
            if len(origins) > MAX_ALIKE:
                self._forget(tenant, key, next(iter(origins)))
            while self._room < 0:
                self._forget(*next(iter(self._answers)))

    def recall(self, tenant: str, keys: Iterable[bytes], text: str) -> list[tuple[bytes, Answer]]:
        """The answers with these keys that followed a beginning of ``text``, the latest of each key first."""
        with self._lock:
            found = [
                (key, self._answers[tenant, key, origin])
                for key in set(keys)
                for origin in reversed(self._origins.get((tenant, key), {}))
            ]
        beginnings = set(_beginnings(text, {answer.origin.length for _, answer in found}))
        known = [(key, answer) for key, answer in found if answer.origin in beginnings]
        with self._lock:
            for key, answer in known:
                if (tenant, key, answer.origin) in self._answers:
                    self._answers.move_to_end((tenant, key, answer.origin))
        return known

    def _forget(self, tenant: str, key: bytes, origin: Origin) -> None:
        forgotten = self._answers.pop((tenant, key, origin), None)
        if forgotten is None:
            return
        self._room += _cost(forgotten)
        origins = self._origins[tenant, key]
        del origins[origin]
        if not origins:
            del self._origins[tenant, key]


def answer_keys(messages: Sequence[MessageParam]) -> dict[int, bytes]:
    """The keys of a conversation's answers, by the numbers of the messages that they are in.

    What the assistant says on end is one answer.
    """
    keys: dict[int, bytes] = {}
    spoken = ((i, message) for i, message in enumerate(messages) if not message.is_directive)
    for role, run in groupby(spoken, key=lambda place: place[1].role):
        if role == "assistant":
            turn = list(run)
            key = content_key([block for _, message in turn for block in message.content])
            keys |= dict.fromkeys((i for i, _ in turn), key)
    return keys


def content_key(blocks: Sequence[object], prefill: str = "") -> bytes:
    """What an answer is found by: its text and calls, in the answer and in the history alike.

    Reasoning does not count, since it may come back without its text; nor does how the text is cut into blocks, or
    space around it, which agents trim; nor what other readers of JSON do to the order of keys and to whole
    numbers. ``prefill``: the text that the answer went on with.
    """
    parts: list[object] = []
    text = prefill
    for block in blocks:
        match block:
            case TextBlock(text=more) | OutputText(text=more):
                text += more
            case ToolUseBlock() | OutputToolUse():
                parts += [text.strip(), [block.id, block.name, _plain(block.input)]]
                text = ""
            case ThinkingBlock() | RedactedThinkingBlock() | OutputThinking() | FallbackBlock():
                pass
            case _:
                parts.append(repr(block))  # no answer holds any, and none is taken for one that does
    return _hashed(json.dumps([*parts, text.strip()], sort_keys=True)).digest()


def _plain(value: object) -> object:
    match value:
        case dict():
            return {key: _plain(part) for key, part in value.items()}
        case list():
            return [_plain(part) for part in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


def _beginnings(text: str, lengths: Iterable[int]) -> Iterator[Origin]:
    """The beginnings of a text that have these lengths, if it is that long. Takes one pass."""
    hashed, done = _hashed(""), 0
    for length in sorted(lengths):
        if length <= len(text):
            hashed.update(_bytes(text[done:length]))
            done = length
            yield Origin(length, hashed.copy().digest())


def _cost(answer: Answer) -> int:
    return len(answer.token_ids) + len(answer.reasoning) // 4 + _OVERHEAD


def _hashed(text: str) -> "hashlib.blake2b":
    return hashlib.blake2b(_bytes(text), digest_size=16)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
