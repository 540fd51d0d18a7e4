"""Stop sequences in streamed text."""

from collections.abc import Sequence


class StopScanner:
    """Releases text up to the first stop sequence, holding back what may still become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest_head = max((len(stop) for stop in stops), default=1) - 1
        self._held = ""
        self.matched: str | None = None
        """The stop sequence that was found. Nothing is released after it."""

    def feed(self, text: str) -> str:
        """Take more text; returns what can be shown now."""
        if self.matched is not None:
            return ""
        text = self._held + text
        found = [(place, stop) for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            # The one complete first, so that the result does not depend on how the text arrived.
            place, self.matched = min(found, key=lambda hit: (hit[0] + len(hit[1]), hit[0]))
            self._held = ""
            return text[:place]
        most = min(self._longest_head, len(text))
        held = next((n for n in range(most, 0, -1) if self._may_begin_with(text[-n:])), 0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def _may_begin_with(self, head: str) -> bool:
        return any(stop.startswith(head) for stop in self._stops)

    def flush(self) -> str:
        """The text ended: what was held back is text after all."""
        held, self._held = self._held, ""
        return held
