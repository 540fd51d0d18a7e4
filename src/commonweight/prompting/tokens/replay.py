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
MAX_PROMPTS_PER_CONTENT = 64
"""Answers remembered that say the same; "Done." is said often."""
_ENTRY_OVERHEAD_TOKENS = 100
"""What remembering an answer costs besides its tokens, in tokens."""


class PromptKey(NamedTuple):
    """The text that an answer followed, by its length and digest."""

    length: int
    digest: bytes

    @classmethod
    def of(cls, text: str) -> "PromptKey":
        """The origin that a text is."""
        return cls(len(text), _start_hash(text).digest())


@dataclass(frozen=True)
class CachedAnswer:
    """One answer as it was generated."""

    prompt_key: PromptKey
    token_ids: Sequence[int]
    """Without the token that ended the turn."""
    reasoning: str = ""
    calls: int = 0
    """How many tools it calls."""


class AnswerCache:
    """Remembers answers, the latest used for longest. Safe to use from several threads."""

    def __init__(self, max_tokens: int = MAX_TOKENS) -> None:
        self._answers: OrderedDict[tuple[str, bytes, PromptKey], CachedAnswer] = OrderedDict()
        # By what they say: where each was said, the latest last.
        self._prompt_keys: dict[tuple[str, bytes], dict[PromptKey, None]] = {}
        self._room = max_tokens
        self._lock = Lock()

    def put(self, tenant: str, key: bytes, answer: CachedAnswer) -> None:
        """Keep an answer under the key of its content."""
        kept = replace(answer, token_ids=array("i", answer.token_ids))
        with self._lock:
            self._remove(tenant, key, kept.prompt_key)
            self._answers[tenant, key, kept.prompt_key] = kept
            prompt_keys = self._prompt_keys.setdefault((tenant, key), {})
            prompt_keys[kept.prompt_key] = None
            self._room -= _cost(kept)
            if len(prompt_keys) > MAX_PROMPTS_PER_CONTENT:
                self._remove(tenant, key, next(iter(prompt_keys)))
            while self._room < 0:
                self._remove(*next(iter(self._answers)))

    def find(self, tenant: str, keys: Iterable[bytes], text: str) -> list[tuple[bytes, CachedAnswer]]:
        """The answers with these keys that followed a beginning of ``text``, the latest of each key first."""
        with self._lock:
            found = [
                (key, self._answers[tenant, key, prompt_key])
                for key in set(keys)
                for prompt_key in reversed(self._prompt_keys.get((tenant, key), {}))
            ]
        beginnings = set(_iter_prefix_keys(text, {answer.prompt_key.length for _, answer in found}))
        known = [(key, answer) for key, answer in found if answer.prompt_key in beginnings]
        with self._lock:
            for key, answer in known:
                if (tenant, key, answer.prompt_key) in self._answers:
                    self._answers.move_to_end((tenant, key, answer.prompt_key))
        return known

    def _remove(self, tenant: str, key: bytes, prompt_key: PromptKey) -> None:
        forgotten = self._answers.pop((tenant, key, prompt_key), None)
        if forgotten is None:
            return
        self._room += _cost(forgotten)
        prompt_keys = self._prompt_keys[tenant, key]
        del prompt_keys[prompt_key]
        if not prompt_keys:
            del self._prompt_keys[tenant, key]


def compute_answer_keys(messages: Sequence[MessageParam]) -> dict[int, bytes]:
    """The keys of a conversation's answers, by the numbers of the messages that they are in.

    What the assistant says on end is one answer.
    """
    keys: dict[int, bytes] = {}
    spoken = ((i, message) for i, message in enumerate(messages) if not message.is_directive)
    for role, run in groupby(spoken, key=lambda position: position[1].role):
        if role == "assistant":
            turn = list(run)
            key = compute_content_key([block for _, message in turn for block in message.content])
            keys |= dict.fromkeys((i for i, _ in turn), key)
    return keys


def compute_content_key(blocks: Sequence[object], prefill: str = "") -> bytes:
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
                parts += [text.strip(), [block.id, block.name, _normalise(block.input)]]
                text = ""
            case ThinkingBlock() | RedactedThinkingBlock() | OutputThinking() | FallbackBlock():
                pass
            case _:
                parts.append(repr(block))  # no answer holds any, and none is taken for one that does
    return _start_hash(json.dumps([*parts, text.strip()], sort_keys=True)).digest()


def _normalise(value: object) -> object:
    match value:
        case dict():
            return {key: _normalise(part) for key, part in value.items()}
        case list():
            return [_normalise(part) for part in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


def _iter_prefix_keys(text: str, lengths: Iterable[int]) -> Iterator[PromptKey]:
    """The beginnings of a text that have these lengths, if it is that long. Takes one pass."""
    hashed, done = _start_hash(""), 0
    for length in sorted(lengths):
        if length <= len(text):
            hashed.update(_encode(text[done:length]))
            done = length
            yield PromptKey(length, hashed.copy().digest())


def _cost(answer: CachedAnswer) -> int:
    return len(answer.token_ids) + len(answer.reasoning) // 4 + _ENTRY_OVERHEAD_TOKENS


def _start_hash(text: str) -> "hashlib.blake2b":
    return hashlib.blake2b(_encode(text), digest_size=16)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
