"""Buffer of generated text that the parser has not consumed, with special tokens as characters of their own."""

from collections.abc import Iterable

from commonweight.prompting.formats import CALL_ID, NUMBER
from commonweight.prompting.tokens.special_tokens import SpecialTokens
from commonweight.prompting.tokens.tokenizer import Tokenizer


class MarkupChars:
    """Mapping of a format's special tokens to single characters: lone surrogates, which are in no text."""

    def __init__(self, tokenizer: Tokenizer, texts: Iterable[str]) -> None:
        special_tokens = tokenizer.special_tokens
        markup = "\0".join(texts)
        chars = {token: chr(0xD800 + i) for i, token in enumerate(t for t in special_tokens if t in markup)}
        self._special_tokens = SpecialTokens(chars)
        self._chars = chars
        self.by_id = {special_tokens[token]: char for token, char in chars.items()}
        self._texts = {ord(char): tokenizer.decode(i).decode(errors="replace") for i, char in self.by_id.items()}

    def encode(self, text: str) -> str:
        """Markup of a format with one character for each special token."""
        parts: list[str] = []
        done = 0
        for start in self._special_tokens.find_starts(text):
            if start >= done:
                end = start + self._special_tokens.match_length(text, start)
                parts += [text[done:start], self._chars[text[start:end]]]
                done = end
        return "".join([*parts, text[done:]])

    def decode(self, text: str) -> str:
        """Generated text with the text of its token for each character of a special token."""
        return text.translate(self._texts)


class TextBuffer:
    """Generated text that has not been consumed; see ``MarkupChars`` for its special tokens."""

    def __init__(self, markup: MarkupChars) -> None:
        self._markup = markup
        self.text = ""
        self.is_last = False
        """The answer has ended: no more text follows."""
        self.is_cut = False
        """A limit ended the answer."""

    def take(self, length: int) -> str:
        """Consume the first ``length`` characters; returns them decoded."""
        taken, self.text = self.text[:length], self.text[length:]
        return self._markup.decode(taken)

    def take_until(self, *markers: str) -> tuple[str, str | None]:
        """Consume text up to and including the first marker; without one, text that cannot begin a marker.

        Returns the text before the marker, and the marker or None.
        """
        end, marker = self._find_first(markers)
        text = self.take(end)
        if marker is not None:
            self.take(len(marker))
        return text, marker

    def peek_before(self, marker: str) -> tuple[str, bool]:
        """The text before a marker, or text that cannot begin it, and whether the marker is there."""
        end, match = self._find_first((marker,))
        return self.text[:end], match is not None

    def _find_first(self, markers: tuple[str, ...]) -> tuple[int, str | None]:
        matches = [(position, marker) for marker in markers if (position := self.text.find(marker)) >= 0]
        if matches:
            return min(matches)
        is_complete = self.is_last and not self.is_cut
        longest = 0 if is_complete else max(map(len, markers), default=1) - 1
        lengths = range(min(longest, len(self.text)), 0, -1)
        held_back = next((n for n in lengths if any(m.startswith(self.text[-n:]) for m in markers)), 0)
        return len(self.text) - held_back, None


def match_length(markup: str, text: str) -> int | None:
    """Length of a format's markup at the beginning of a text; None if the text does not match it.

    A length beyond the text's own: all of the text matches the beginning of the markup.
    """
    position = 0
    for p in markup:
        if position >= len(text):
            return len(text) + 1
        if p == NUMBER:
            digits = len(text) - position - len(text[position:].lstrip("0123456789"))
            if digits == 0:
                return None
            position += digits
        elif text[position] == p or (p == CALL_ID[0] and text[position].isalnum()):
            position += 1
        else:
            return None
    return position
