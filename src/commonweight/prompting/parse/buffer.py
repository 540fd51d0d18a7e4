"""Text of an answer that has come and is not understood yet."""

from collections.abc import Iterable

from commonweight.prompting.formats import CALL_ID, NUMBER
from commonweight.prompting.tokens.special_tokens import SpecialTokens
from commonweight.prompting.tokens.tokenizer import Tokenizer


class MarkupChars:
    """Special tokens of markup as characters of their own: lone surrogates, which are in no text."""

    def __init__(self, tokenizer: Tokenizer, texts: Iterable[str]) -> None:
        special_tokens = tokenizer.special_tokens
        markup = "\0".join(texts)
        chars = {token: chr(0xD800 + i) for i, token in enumerate(t for t in special_tokens if t in markup)}
        self._specials = SpecialTokens(chars)
        self._chars = chars
        self.by_id = {special_tokens[token]: char for token, char in chars.items()}
        self._texts = {ord(char): tokenizer.decode(i).decode(errors="replace") for i, char in self.by_id.items()}

    def encode(self, text: str) -> str:
        """A format's text with a sign for each special token."""
        parts: list[str] = []
        done = 0
        for start in self._specials.find_starts(text):
            if start >= done:
                end = start + self._specials.match_length(text, start)
                parts += [text[done:start], self._chars[text[start:end]]]
                done = end
        return "".join([*parts, text[done:]])

    def decode(self, text: str) -> str:
        """What is to be read of a text: a sign that is no markup where it stands shows what its token says."""
        return text.translate(self._texts)


class TextBuffer:
    """The text, with signs."""

    def __init__(self, markup: MarkupChars) -> None:
        self._signs = markup
        self.text = ""
        self.is_last = False
        """No more will come."""
        self.is_cut = False
        """But there would have been more."""

    def take(self, length: int) -> str:
        """Take off the beginning; returns it as it is to be shown."""
        taken, self.text = self.text[:length], self.text[length:]
        return self._signs.decode(taken)

    def take_until(self, *markers: str) -> tuple[str, str | None]:
        """Take what stands before the first marker, and the marker; without one, as far as none can have begun."""
        end, marker = self._first(markers)
        text = self.take(end)
        if marker is not None:
            self.take(len(marker))
        return text, marker

    def peek_before(self, marker: str) -> tuple[str, bool]:
        """What stands before a marker, or so far before where it may begin, and whether it is there."""
        end, found = self._first((marker,))
        return self.text[:end], found is not None

    def _first(self, markers: tuple[str, ...]) -> tuple[int, str | None]:
        found = [(place, marker) for marker in markers if (place := self.text.find(marker)) >= 0]
        if found:
            return min(found)
        is_whole = self.is_last and not self.is_cut
        longest = 0 if is_whole else max(map(len, markers), default=1) - 1
        lengths = range(min(longest, len(self.text)), 0, -1)
        held = next((n for n in lengths if any(m.startswith(self.text[-n:]) for m in markers)), 0)
        return len(self.text) - held, None


def match_length(pattern: str, text: str) -> int | None:
    """How long a format's text is at the beginning of a text; None if that is something else.

    A length beyond the text's: it may be the beginning of the format's.
    """
    place = 0
    for p in pattern:
        if place >= len(text):
            return len(text) + 1
        if p == NUMBER:
            digits = len(text) - place - len(text[place:].lstrip("0123456789"))
            if digits == 0:
                return None
            place += digits
        elif text[place] == p or (p == CALL_ID[0] and text[place].isalnum()):
            place += 1
        else:
            return None
    return place
