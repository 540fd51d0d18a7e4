"""Tokenization of rendered prompts: special tokens where the template wrote them, ordinary text elsewhere."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

from commonweight.prompting.tokens.escaping import Escaper, unescape
from commonweight.prompting.tokens.replay import CachedAnswer
from commonweight.prompting.tokens.special_tokens import SpecialTokens
from commonweight.prompting.tokens.tokenizer import Tokenizer

# White space that llama.cpp strips beside special tokens with LSTRIP or RSTRIP.
_C_SPACE = " \t\n\v\f\r"

MAX_CACHED_CHARACTERS = 8_000_000
"""Capacity of the cache of tokenized texts: agents send the same long ones every turn."""


class TooLongError(ValueError):
    """A prompt has more tokens than are allowed: at least ``tokens``."""

    def __init__(self, tokens: int) -> None:
        super().__init__(f"at least {tokens} tokens")
        self.tokens = tokens


@dataclass(frozen=True)
class AnswerSpan:
    """A cached answer, and the span of the prompt that the template rendered for it."""

    answer: CachedAnswer
    start: int
    content: int | None
    """A position in the last part of its content; the template's next special token ends it. None: unknown."""
    is_content_end: bool
    """The content ends at that position."""
    limit: int
    """Start of the next message, or end of the prompt."""


@dataclass(frozen=True)
class Segment:
    """A piece of a prompt: a special token, ordinary text, or a cached answer."""

    start: int
    text: str
    is_special: bool = False
    answer: CachedAnswer | None = None
    """The cached answer whose token ids replace the text."""

    @property
    def end(self) -> int:
        """Exclusive end."""
        return self.start + len(self.text)


class PromptEncoder:
    """Tokenizes rendered prompts for one tokenizer. Safe to use from several threads."""

    def __init__(
        self, tokenizer: Tokenizer, escaper: Escaper, max_cached_characters: int = MAX_CACHED_CHARACTERS
    ) -> None:
        self._tokenizer = tokenizer
        self._escaper = escaper
        self._special_bytes = {token_id: text.encode() for text, token_id in tokenizer.special_tokens.items()}
        self._special_tokens = SpecialTokens(tokenizer.special_tokens)
        self._cache = _TextCache(max_cached_characters)

    def encode(
        self,
        text: str,
        tenant: str,
        answers: Sequence[AnswerSpan] = (),
        cut: int = 0,
        positions: Sequence[int] = (),
        max_tokens: int | None = None,
    ) -> tuple[list[int], list[int]]:
        """Token ids of an escaped prompt, and the number of them before each of ``positions``, which are in order.

        ``cut``: a position that no token crosses. ``answers`` are in order, too; the first that fits is taken of
        several for one span. ``max_tokens``: what is certainly longer is not tokenized, as that takes minutes.

        Raises:
            TooLongError, DenseTextError: the prompt would take too long.
        """
        tokenizer = self._tokenizer
        segments = list(self._split_at(self._split_segments(text, answers), cut))
        if max_tokens is not None:
            texts = (unescape(segment.text) for segment in segments if not segment.is_special)
            self.check_length(texts, max_tokens)
        bos = tokenizer.bos_id
        has_bos = bool(segments) and segments[0].is_special and tokenizer.special_tokens[segments[0].text] == bos
        ids = [bos] if tokenizer.adds_bos and bos is not None and not has_bos else []
        counts: list[int] = []
        remaining = iter([*positions, len(text) + 1])
        position = next(remaining)
        for i, segment in enumerate(segments):
            before = len(ids)
            skipped = 0
            if segment.answer is not None:
                ids += segment.answer.token_ids
            elif segment.is_special:
                ids.append(tokenizer.special_tokens[segment.text])
            else:
                stripped = segment.text
                previous = segments[i - 1] if i else None
                following = segments[i + 1] if i + 1 < len(segments) else None
                # Some special tokens strip the white space beside them.
                if previous and previous.is_special and tokenizer.strips(ids[-1])[1]:
                    stripped = stripped.lstrip(_C_SPACE)
                    skipped = len(segment.text) - len(stripped)
                if following and following.is_special:
                    strips_before, _ = tokenizer.strips(tokenizer.special_tokens[following.text])
                    stripped = stripped.rstrip(_C_SPACE) if strips_before else stripped
                follows_text = previous is not None and not previous.is_special
                ids += self._encode_text(unescape(stripped), tenant, follows_text)
            while position <= segment.end:
                is_within = not segment.is_special and position < segment.end
                part = segment.text[skipped : max(position - segment.start, skipped)]
                counts.append(before + self._count_tokens(ids[before:], part, segment) if is_within else len(ids))
                position = next(remaining)
        return ids, counts + [len(ids)] * (len(positions) - len(counts))

    def check_length(self, texts: Iterable[str], max_tokens: int) -> None:
        """Refuse texts that have more tokens, whatever tokens they are: without the white space around them.

        Raises:
            TooLongError: they have.
        """
        longest = self._tokenizer.max_token_bytes
        tokens = sum(len(text.strip().encode(errors="replace")) // longest for text in texts)
        if tokens > max_tokens:
            raise TooLongError(tokens)

    def _split_segments(self, text: str, answers: Sequence[AnswerSpan]) -> Iterator[Segment]:
        """The prompt in segments, with those of completely rendered answers replaced by the cached answers."""
        pieces: list[Segment] = []
        start = 0
        for piece, is_special in self._escaper.split_special(text):
            pieces.append(Segment(start, piece, is_special))
            start += len(piece)
        starts = [piece.start for piece in pieces]
        done = 0
        for span in answers:
            first = bisect_right(starts, span.start) - 1
            end = self._find_answer_end(span, text, pieces[first:]) if span.start >= done and pieces else None
            if end is None:
                continue
            yield from _select_range(pieces, starts, done, span.start)
            yield Segment(span.start, text[span.start : end], answer=span.answer)
            done = end
        yield from _select_range(pieces, starts, done, len(text))

    def _find_answer_end(self, span: AnswerSpan, text: str, pieces: Sequence[Segment]) -> int | None:
        """Exclusive end of the answer in the text; None if the template did not render all of it."""
        if span.content is not None:
            generated = {self._special_bytes.get(token_id) for token_id in span.answer.token_ids}
            template_tokens = (p.start for p in pieces if p.is_special and p.text.encode() not in generated)
            end = next((position for position in template_tokens if position >= span.content), span.limit)
            if end >= span.limit and span.is_content_end:
                end = span.content  # a template that ends turns with text
            is_shown = span.answer.reasoning.strip() in unescape(text[span.start : end])
            return end if end < span.limit and is_shown else None
        # A prefill that is a cached answer which was cut off.
        rendered = unescape(text[span.start :]).encode() if span.limit == len(text) else b""
        return span.limit if rendered.strip() == self.spell(span.answer.token_ids).strip() else None

    def spell(self, ids: Iterable[int]) -> bytes:
        """The bytes that token ids stand for."""
        return b"".join(map(self._bytes_of, ids))

    def _bytes_of(self, token_id: int) -> bytes:
        return self._special_bytes.get(token_id) or self._tokenizer.decode(token_id)

    def _count_tokens(self, ids: Sequence[int], text: str, segment: Segment) -> int:
        """Number of a segment's token ids that lie within a prefix of its text."""
        prefix = unescape(text).encode()
        spelled = self.spell(ids[: len(prefix) + 1])
        if segment.answer is not None and not spelled.lstrip(b" ").startswith(prefix.lstrip(b" ")):
            return len(ids)  # the template renders the answer in another form
        # Some tokenizers put a space in front of a text.
        room = len(prefix) + (spelled.startswith(b" ") and not prefix.startswith(b" "))
        for i, token_id in enumerate(ids):
            room -= len(self._bytes_of(token_id))
            if room < 0:
                return i
        return len(ids)

    def _encode_text(self, text: str, tenant: str, continues: bool) -> list[int]:
        ids = self._cache.get(tenant, text, continues)
        if ids is None:
            ids = self._encode_uncached(text, continues)
            self._cache.put(tenant, text, continues, ids)
        return ids

    def _encode_uncached(self, text: str, continues: bool) -> list[int]:
        ids = self._tokenizer.encode(text, continues=continues)
        if self._special_bytes.keys().isdisjoint(ids):
            return ids
        # A user-defined token that counts as special, which llama.cpp matches even in ordinary text, or a control
        # token that byte-pair merges can produce: split in two, the text gives neither.
        ids = []
        done = 0
        for start in self._special_tokens.find_starts(text):
            ids += self._tokenizer.encode(text[done : start + 1], continues=continues or done > 0)
            done = start + 1
        return ids + self._tokenizer.encode(text[done:], continues=continues or done > 0)

    @staticmethod
    def _split_at(segments: Iterator[Segment], position: int) -> Iterator[Segment]:
        for segment in segments:
            is_text = not segment.is_special and segment.answer is None
            if is_text and segment.start < position < segment.end:
                yield Segment(segment.start, segment.text[: position - segment.start])
                yield Segment(position, segment.text[position - segment.start :])
            else:
                yield segment


def _select_range(pieces: Sequence[Segment], starts: Sequence[int], start: int, end: int) -> Iterator[Segment]:
    """The pieces between two positions, cut off at them."""
    for piece in pieces[max(bisect_right(starts, start) - 1, 0) :]:
        if piece.start >= end:
            return
        if piece.end > start:
            text = piece.text[max(start - piece.start, 0) : end - piece.start]
            yield Segment(max(piece.start, start), text, piece.is_special)


class _TextCache:
    """LRU cache of token ids by text and tenant, so that no tenant can measure which texts another one sent."""

    def __init__(self, characters: int) -> None:
        self._texts: OrderedDict[tuple[str, str, bool], list[int]] = OrderedDict()
        self._capacity = self._room = characters
        self._lock = Lock()

    def get(self, tenant: str, text: str, continues: bool) -> list[int] | None:
        key = tenant, text, continues
        with self._lock:
            ids = self._texts.get(key)
            if ids is not None:
                self._texts.move_to_end(key)
            return ids

    def put(self, tenant: str, text: str, continues: bool, ids: list[int]) -> None:
        if len(text) > self._capacity:
            return
        key = tenant, text, continues
        with self._lock:
            if key not in self._texts:
                self._texts[key] = ids
                self._room -= len(text)
            while self._room < 0:
                (_, evicted, _), _ = self._texts.popitem(last=False)
                self._room += len(evicted)
