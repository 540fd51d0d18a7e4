"""Generated tokens to the text of the answer."""

import codecs
from collections.abc import Sequence

from commonweight.prompting.render import Prompt
from commonweight.prompting.stops import StopScanner
from commonweight.prompting.tokenizer import Tokenizer


class OutputParser:
    """Turns one answer's tokens into text, piece by piece.

    A character whose bytes are spread over tokens appears with its last byte; one that the end cuts off does not
    appear.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Prompt, stop_sequences: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = StopScanner([*stop_sequences, *prompt.turn_ends])
        self._stop_sequences = frozenset(stop_sequences)
        self._drops_space = tokenizer.marks_word_starts and not prompt.continues_text

    @property
    def is_complete(self) -> bool:
        """Whether the text itself ended the answer: no further token matters."""
        return self._stops.matched is not None

    @property
    def stop_sequence(self) -> str | None:
        """The client's stop sequence that ended the answer, if one did."""
        return self._stops.matched if self._stops.matched in self._stop_sequences else None

    def feed(self, token_id: int) -> str:
        """Take the next token; returns the text that can be shown now."""
        text = self._utf8.decode(self._tokenizer.decode(token_id))
        if text and self._drops_space:
            self._drops_space = False
            text = text.removeprefix(" ")
        return self._stops.feed(text)

    def flush(self) -> str:
        """No more tokens come; returns the text that was held back."""
        return self._stops.flush()
