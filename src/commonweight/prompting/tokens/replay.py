"""Cache of generated token ids, for the answers in a conversation's history.

The same text has many tokenizations, and a template may space a call differently than the model did. The engine's
cached prefix ends where the tokens differ; so an answer is cached under the prompt that it followed, and its own
token ids stand in its place in the next prompt.
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
"""Capacity of the cache."""
MAX_PROMPTS_PER_CONTENT = 64
"""Most cached answers with the same content: \"Done.\" follows many prompts."""
_ENTRY_OVERHEAD_TOKENS = 100
"""Memory of a cached answer besides its token ids."""


class PromptKey(NamedTuple):
    """Length and digest of the rendered text that an answer followed."""

    length: int
    digest: bytes

    @classmethod
    def of(cls, text: str) -> "PromptKey":
        """The key of a text."""
        return cls(len(text), _start_hash(text).digest())


@dataclass(frozen=True)
class CachedAnswer:
    """Token ids of one generated answer, and the prompt that they followed."""

    prompt_key: PromptKey
    token_ids: Sequence[int]
    """Without the token that ended the turn."""
    reasoning: str = ""
    calls: int = 0
    """Number of tool calls."""


class AnswerCache:
    """LRU cache of answers by tenant, content and prompt. Safe to use from several threads."""

    def __init__(self, max_tokens: int = MAX_TOKENS) -> None:
        self._answers: OrderedDict[tuple[str, bytes, PromptKey], CachedAnswer] = OrderedDict()
        # Prompts of the cached answers by content key, in order of insertion.
        self._prompt_keys: dict[tuple[str, bytes], dict[PromptKey, None]] = {}
        self._room = max_tokens
        self._lock = Lock()

    def put(self, tenant: str, key: bytes, answer: CachedAnswer) -> None:
        """Cache an answer under the key of its content."""
        answer = replace(answer, token_ids=array("i", answer.token_ids))
        with self._lock:
            self._remove(tenant, key, answer.prompt_key)
            self._answers[tenant, key, answer.prompt_key] = answer
            prompt_keys = self._prompt_keys.setdefault((tenant, key), {})
            prompt_keys[answer.prompt_key] = None
            self._room -= _cost(answer)
            if len(prompt_keys) > MAX_PROMPTS_PER_CONTENT:
                self._remove(tenant, key, next(iter(prompt_keys)))
            while self._room < 0:
                self._remove(*next(iter(self._answers)))

    def find(self, tenant: str, keys: Iterable[bytes], text: str) -> list[tuple[bytes, CachedAnswer]]:
        """Answers with these content keys that followed a prefix of ``text``, the latest of each key first."""
        with self._lock:
            candidates = [
                (key, self._answers[tenant, key, prompt_key])
                for key in set(keys)
                for prompt_key in reversed(self._prompt_keys.get((tenant, key), {}))
            ]
        prefixes = set(_iter_prefix_keys(text, {answer.prompt_key.length for _, answer in candidates}))
        answers = [(key, answer) for key, answer in candidates if answer.prompt_key in prefixes]
        with self._lock:
            for key, answer in answers:
                if (tenant, key, answer.prompt_key) in self._answers:
                    self._answers.move_to_end((tenant, key, answer.prompt_key))
        return answers

    def _remove(self, tenant: str, key: bytes, prompt_key: PromptKey) -> None:
        removed = self._answers.pop((tenant, key, prompt_key), None)
        if removed is None:
            return
        self._room += _cost(removed)
        prompt_keys = self._prompt_keys[tenant, key]
        del prompt_keys[prompt_key]
        if not prompt_keys:
            del self._prompt_keys[tenant, key]


def compute_answer_keys(messages: Sequence[MessageParam]) -> dict[int, bytes]:
    """Content keys of the answers in a conversation, by message index.

    Consecutive assistant messages are one answer.
    """
    keys: dict[int, bytes] = {}
    numbered = ((i, message) for i, message in enumerate(messages) if not message.is_directive)
    for role, run in groupby(numbered, key=lambda item: item[1].role):
        if role == "assistant":
            turn = list(run)
            key = compute_content_key([block for _, message in turn for block in message.content])
            keys |= dict.fromkeys((i for i, _ in turn), key)
    return keys


def compute_content_key(blocks: Sequence[object], prefill: str = "") -> bytes:
    """Digest of an answer's text and calls, the same for the generated answer and for its copy in the history.

    Reasoning does not count, since it may come back without its text; nor does how the text is split into blocks,
    or white space around it, which agents trim; nor the order of JSON keys and the form of whole numbers, which
    other JSON libraries change. ``prefill``: the text that the answer continues.
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
                parts.append(repr(block))  # in no generated answer, so that the key matches none
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
    """Keys of the prefixes of a text with these lengths, in one pass; none for lengths beyond the text."""
    digest, done = _start_hash(""), 0
    for length in sorted(lengths):
        if length <= len(text):
            digest.update(_encode(text[done:length]))
            done = length
            yield PromptKey(length, digest.copy().digest())


def _cost(answer: CachedAnswer) -> int:
    return len(answer.token_ids) + len(answer.reasoning) // 4 + _ENTRY_OVERHEAD_TOKENS


def _start_hash(text: str) -> "hashlib.blake2b":
    return hashlib.blake2b(_encode(text), digest_size=16)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
