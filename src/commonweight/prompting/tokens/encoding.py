"""Rendered text to tokens: special tokens where the template wrote them, ordinary text everywhere else."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

from commonweight.prompting.tokens.escaping import Escaper, unescape
from commonweight.prompting.tokens.replay import CachedAnswer
from commonweight.prompting.tokens.special_tokens import SpecialTokens
from commonweight.prompting.tokens.tokenizer import Tokenizer

# What llama.cpp takes for space beside special tokens that swallow it.
_C_SPACE = " \t\n\v\f\r"

MAX_CACHED_CHARACTERS = 8_000_000
"""Of texts whose tokens are kept: agents send the same long ones every turn."""


@dataclass(frozen=True)
class AnswerSpan:
    """An answer, and the stretch of the prompt that the template wrote for it."""

    answer: CachedAnswer
    start: int
    content: int | None
    """A place in the last of its content; the turn ends with the template's next token. None: nobody knows."""
    is_content_end: bool
    """The content ends at that place."""
    limit: int
    """Where the next message begins, or the prompt ends."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a prompt, from ``start``."""

    start: int
    text: str
    is_special: bool = False
    answer: CachedAnswer | None = None
    """What was generated there."""

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.start + len(self.text)


class PromptEncoder:
    """Encodes rendered prompts for one tokenizer. Safe to use from several threads."""

    def __init__(
        self, tokenizer: Tokenizer, escaper: Escaper, most_characters: int = MAX_CACHED_CHARACTERS
    ) -> None:
        self._tokenizer = tokenizer
        self._quoter = escaper
        self._names = {token_id: text.encode() for text, token_id in tokenizer.special_tokens.items()}
        self._specials = SpecialTokens(tokenizer.special_tokens)
        self._cache = _TextCache(most_characters)

    def encode(
        self,
        text: str,
        tenant: str,
        answers: Sequence[AnswerSpan] = (),
        cut: int = 0,
        positions: Sequence[int] = (),
    ) -> tuple[list[int], list[int]]:
        """The tokens of a quoted prompt, and how many of them stand before each of ``places``, which are in order.

        ``cut``: a place that no token reaches over. Answers are in the order of their places, too; of those that
        may stand in one place, the first that fits is taken.
        """
        tokenizer = self._tokenizer
        segments = list(self._split_at(self._split_segments(text, answers), cut))
        bos = tokenizer.bos_id
        has_bos = bool(segments) and segments[0].is_special and tokenizer.special_tokens[segments[0].text] == bos
        ids = [bos] if tokenizer.adds_bos and bos is not None and not has_bos else []
        counts: list[int] = []
        waiting = iter([*positions, len(text) + 1])
        position = next(waiting)
        for i, segment in enumerate(segments):
            before = len(ids)
            skipped = 0
            if segment.answer is not None:
                ids += segment.answer.token_ids
            elif segment.is_special:
                ids.append(tokenizer.special_tokens[segment.text])
            else:
                kept = segment.text
                previous = segments[i - 1] if i else None
                following = segments[i + 1] if i + 1 < len(segments) else None
                # Text stands between special tokens, and some of them swallow the space beside them.
                if previous and previous.is_special and tokenizer.strips(ids[-1])[1]:
                    kept = kept.lstrip(_C_SPACE)
                    skipped = len(segment.text) - len(kept)
                if following and following.is_special:
                    strips_before, _ = tokenizer.strips(tokenizer.special_tokens[following.text])
                    kept = kept.rstrip(_C_SPACE) if strips_before else kept
                follows_text = previous is not None and not previous.is_special
                ids += self._encode_text(unescape(kept), tenant, follows_text)
            while position <= segment.end:
                is_within = not segment.is_special and position < segment.end
                part = segment.text[skipped : max(position - segment.start, skipped)]
                counts.append(before + self._count_tokens(ids[before:], part, segment) if is_within else len(ids))
                position = next(waiting)
        return ids, counts + [len(ids)] * (len(positions) - len(counts))

    def _split_segments(self, text: str, answers: Sequence[AnswerSpan]) -> Iterator[Segment]:
        """The prompt in segments, and in the place of each answer that it shows whole the answer itself."""
        pieces: list[Segment] = []
        start = 0
        for piece, is_special in self._quoter.split_special(text):
            pieces.append(Segment(start, piece, is_special))
            start += len(piece)
        starts = [piece.start for piece in pieces]
        done = 0
        for known in answers:
            first = bisect_right(starts, known.start) - 1
            last = self._find_answer_end(known, text, pieces[first:]) if known.start >= done and pieces else None
            if last is None:
                continue
            yield from _select_range(pieces, starts, done, known.start)
            yield Segment(known.start, text[known.start : last], answer=known.answer)
            done = last
        yield from _select_range(pieces, starts, done, len(text))

    def _find_answer_end(self, known: AnswerSpan, text: str, pieces: Sequence[Segment]) -> int | None:
        """Where the answer ends, if all of it is there."""
        if known.content is not None:
            generated = {self._names.get(token_id) for token_id in known.answer.token_ids}
            own = (p.start for p in pieces if p.is_special and p.text.encode() not in generated)
            end = next((position for position in own if position >= known.content), known.limit)
            if end >= known.limit and known.is_content_end:
                end = known.content  # a template that ends turns with text
            is_shown = known.answer.reasoning.strip() in unescape(text[known.start : end])
            return end if end < known.limit and is_shown else None
        # An answer that was cut off shall go on.
        shown = unescape(text[known.start :]).encode() if known.limit == len(text) else b""
        return known.limit if shown.strip() == self._spell(known.answer.token_ids).strip() else None

    def _spell(self, ids: Iterable[int]) -> bytes:
        return b"".join(map(self._bytes_of, ids))

    def _bytes_of(self, token_id: int) -> bytes:
        return self._names.get(token_id) or self._tokenizer.decode(token_id)

    def _count_tokens(self, ids: Sequence[int], text: str, segment: Segment) -> int:
        """How many of a segment's tokens lie within a text that the segment begins with."""
        wanted = unescape(text).encode()
        spelled = self._spell(ids[: len(wanted) + 1])
        if segment.answer is not None and not spelled.lstrip(b" ").startswith(wanted.lstrip(b" ")):
            return len(ids)  # the template writes it in another way
        # Some models write a space of their own where a text begins.
        room = len(wanted) + (spelled.startswith(b" ") and not wanted.startswith(b" "))
        for i, token_id in enumerate(ids):
            room -= len(self._bytes_of(token_id))
            if room < 0:
                return i
        return len(ids)

    def _encode_text(self, text: str, tenant: str, continues: bool) -> list[int]:
        found = self._cache.get(tenant, text, continues)
        if found is None:
            found = self._encode_new(text, continues)
            self._cache.put(tenant, text, continues, found)
        return found

    def _encode_new(self, text: str, continues: bool) -> list[int]:
        ids = self._tokenizer.encode(text, continues=continues)
        if self._names.keys().isdisjoint(ids):
            return ids
        # A user-defined token that reads like markup, which tokenizers match even in ordinary text, or a control
        # token that a vocabulary can spell: cut in two it is neither.
        ids = []
        done = 0
        for start in self._specials.find_starts(text):
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
    """The pieces from one place to another, of which either may cut a text."""
    for piece in pieces[max(bisect_right(starts, start) - 1, 0) :]:
        if piece.start >= end:
            return
        if piece.end > start:
            kept = piece.text[max(start - piece.start, 0) : end - piece.start]
            yield Segment(max(piece.start, start), kept, piece.is_special)


class _TextCache:
    """Tokens of texts, the latest used for longest. Tenants do not see how long each other's take."""

    def __init__(self, characters: int) -> None:
        self._texts: OrderedDict[tuple[str, str, bool], list[int]] = OrderedDict()
        self._most = self._room = characters
        self._lock = Lock()

    def get(self, tenant: str, text: str, continues: bool) -> list[int] | None:
        key = tenant, text, continues
        with self._lock:
            found = self._texts.get(key)
            if found is not None:
                self._texts.move_to_end(key)
            return found

    def put(self, tenant: str, text: str, continues: bool, ids: list[int]) -> None:
        if len(text) > self._most:
            return
        key = tenant, text, continues
        with self._lock:
            if key not in self._texts:
                self._texts[key] = ids
                self._room -= len(text)
            while self._room < 0:
                (_, forgotten, _), _ = self._texts.popitem(last=False)
                self._room += len(forgotten)
