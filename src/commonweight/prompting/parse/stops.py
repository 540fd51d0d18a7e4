"""Stop sequences in streamed text."""

from collections.abc import Sequence


class StopScanner:
    """Scanner for stop sequences in streamed text, which holds back text that may begin one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest_head = max((len(stop) for stop in stops), default=1) - 1
        self._held_back = ""
        self.matched: str | None = None
        """The first stop sequence in the text, after which no text is returned."""

    def feed(self, text: str) -> str:
        """Add text; returns the text that cannot belong to a stop sequence."""
        if self.matched is not None:
            return ""
        text = self._held_back + text
        matches = [(position, stop) for stop in self._stops if (position := text.find(stop)) >= 0]
        if matches:
            # The one that ends first, so that the result does not depend on how the text is split.
            start, self.matched = min(matches, key=lambda match: (match[0] + len(match[1]), match[0]))
            self._held_back = ""
            return text[:start]
        longest = min(self._longest_head, len(text))
        held_back = next((n for n in range(longest, 0, -1) if self._begins_stop(text[-n:])), 0)
        self._held_back = text[len(text) - held_back :]
        return text[: len(text) - held_back]

    def _begins_stop(self, head: str) -> bool:
        return any(stop.startswith(head) for stop in self._stops)

    def flush(self) -> str:
        """End the text; returns the text that was held back."""
        text, self._held_back = self._held_back, ""
        return text
