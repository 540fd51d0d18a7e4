"""Rendered text to tokens: special tokens where the template wrote them, ordinary text everywhere else."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from commonweight.prompting.marks import Ttl
from commonweight.prompting.quoting import Quoter, Specials
from commonweight.prompting.recollection import Answer
from commonweight.prompting.tokenizer import Tokenizer

# What llama.cpp takes for space beside special tokens that swallow it.
_C_SPACE = " \t\n\v\f\r"

CACHED_CHARACTERS = 8_000_000
"""Of texts whose tokens are kept: agents send the same long ones every turn."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a rendered prompt, from ``start``."""

    start: int
    text: str
    is_special: bool = False
    known: Sequence[int] | None = None
    """Its tokens, if it was generated."""


class Encoder:
    """Encodes rendered prompts for one tokenizer. Safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special_ids = frozenset(tokenizer.special_tokens.values())
        self._specials = Specials(tokenizer.special_tokens)
        self._cache = _TextCache(CACHED_CHARACTERS)

    def encode(
        self, text: str, quoter: Quoter, answers: Sequence[Answer], marks: Sequence[tuple[int, Ttl]], tenant: str
    ) -> tuple[list[int], list[tuple[int, Ttl]]]:
        """The tokens of a rendered prompt, and the marks by the number of tokens before them.

        ``answers``: what was generated after a beginning of this very text; ``marks``: by their place in it.
        """
        tokenizer = self._tokenizer
        segments = self._segments(text, quoter, answers)
        bos = tokenizer.bos_id
        first = segments[0] if segments else None
        has_bos = first is not None and first.is_special and tokenizer.special_tokens[first.text] == bos
        ids = [bos] if tokenizer.adds_bos and bos is not None and not has_bos else []
        placed: list[tuple[int, Ttl]] = []
        waiting = list(marks)
        for i, segment in enumerate(segments):
            before = len(ids)
            kept, skipped = segment.text, 0
            if segment.known is not None:
                ids += segment.known
            elif segment.is_special:
                ids.append(tokenizer.special_tokens[segment.text])
            else:
                # Text stands between special tokens, and some of them swallow the space beside them.
                if i and segments[i - 1].is_special and tokenizer.strips(ids[-1])[1]:
                    kept = kept.lstrip(_C_SPACE)
                    skipped = len(segment.text) - len(kept)
                following = segments[i + 1] if i + 1 < len(segments) else None
                if following and following.is_special:
                    strips_before, _ = tokenizer.strips(tokenizer.special_tokens[following.text])
                    kept = kept.rstrip(_C_SPACE) if strips_before else kept
                ids += self._encode_text(quoter.unquote(kept), tenant)
            end = segment.start + len(segment.text)
            while waiting and waiting[0][0] <= end:
                place, ttl = waiting.pop(0)
                position = len(ids)
                if place < end and not segment.is_special and segment.known is None:
                    part = quoter.unquote(kept[: max(0, place - segment.start - skipped)])
                    position = before + self._tokens_within(ids[before:], part)
                placed.append((position, ttl))
        return ids, placed

    def _segments(self, text: str, quoter: Quoter, answers: Sequence[Answer]) -> list[Segment]:
        segments: list[Segment] = []
        start = 0
        for piece, is_special in quoter.pieces(text):
            segments.append(Segment(start, piece, is_special))
            start += len(piece)
        for answer in answers:
            segments = self._spliced(segments, answer, quoter)
        return segments

    def _spliced(self, segments: list[Segment], answer: Answer, quoter: Quoter) -> list[Segment]:
        """The segments with an answer's own tokens in its place, if the template still shows all of it."""
        start = answer.origin.length
        generated = set(answer.token_ids)
        before: list[Segment] = []
        stretch: list[Segment] = []
        after: list[Segment] = []
        for segment in segments:
            segment_end = segment.start + len(segment.text)
            if segment_end <= start:
                before.append(segment)
                continue
            is_end = segment.is_special and self._tokenizer.special_tokens[segment.text] not in generated
            if after or is_end or segment.known is not None:
                after.append(segment)
            elif segment.start < start:  # the text that leads to the answer goes on with it
                before.append(Segment(segment.start, segment.text[: start - segment.start]))
                stretch.append(Segment(start, segment.text[start - segment.start :]))
            else:
                stretch.append(segment)
        text = quoter.unquote("".join(segment.text for segment in stretch))
        is_whole = after and stretch and answer.reasoning.strip() in text
        if not is_whole:
            return segments
        return [*before, Segment(start, "".join(s.text for s in stretch), known=answer.token_ids), *after]

    def _tokens_within(self, ids: Sequence[int], text: str) -> int:
        """How many of the tokens lie within the text that they begin with."""
        room = len(text.encode())
        for i, token_id in enumerate(ids):
            room -= len(self._tokenizer.decode(token_id))
            if room < 0:
                return i
        return len(ids)

    def _encode_text(self, text: str, tenant: str) -> list[int]:
        found = self._cache.get(tenant, text)
        if found is None:
            found = self._encode_new(text)
            self._cache.put(tenant, text, found)
        return found

    def _encode_new(self, text: str) -> list[int]:
        ids = self._tokenizer.encode(text)
        if self._special_ids.isdisjoint(ids):
            return ids
        # A user-defined token that reads like markup, which tokenizers match even in ordinary text, or a control
        # token that a vocabulary can spell: cut in two it is neither.
        ids = []
        done = 0
        for start in self._specials.beginnings(text):
            ids += self._tokenizer.encode(text[done : start + 1], continues=done > 0)
            done = start + 1
        return ids + self._tokenizer.encode(text[done:], continues=done > 0)


class _TextCache:
    """Tokens of texts, the latest used for longest. Tenants do not see how long each other's take."""

    def __init__(self, characters: int) -> None:
        self._texts: OrderedDict[tuple[str, str], list[int]] = OrderedDict()
        self._most = self._room = characters
        self._lock = Lock()

    def get(self, tenant: str, text: str) -> list[int] | None:
        with self._lock:
            found = self._texts.get((tenant, text))
            if found is not None:
                self._texts.move_to_end((tenant, text))
            return found

    def put(self, tenant: str, text: str, ids: list[int]) -> None:
        if len(text) > self._most:
            return
        with self._lock:
            if (tenant, text) not in self._texts:
                self._texts[tenant, text] = ids
                self._room -= len(text)
            while self._room < 0:
                (_, forgotten), _ = self._texts.popitem(last=False)
                self._room += len(forgotten)
