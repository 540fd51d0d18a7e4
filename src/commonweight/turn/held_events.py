"""Events of an answer that wait because the end of its text is held back."""

from collections import deque

from commonweight.messages.events import ContentBlockDelta, StreamEvent, TextDelta, ThinkingDelta


class HeldEvents:
    """Events in their order, counted by the characters of text and thinking that they add.

    To take what is ready costs no more than what is taken: a stream may hold back thousands of events for long.
    """

    def __init__(self) -> None:
        self._events: deque[StreamEvent] = deque()
        self._characters = 0

    def add(self, event: StreamEvent) -> None:
        """Add an event."""
        self._events.append(event)
        self._characters += len(_get_text(event))

    def clear(self) -> None:
        """Drop all events."""
        self._events.clear()
        self._characters = 0

    def take_ready(self, held: int) -> list[StreamEvent]:
        """Take the events before the last ``held`` characters of text. One that these begin in is cut."""
        ready: list[StreamEvent] = []
        while self._events:
            event = self._events[0]
            characters = len(_get_text(event))
            free = self._characters - held
            if free < 0 or free < characters:
                if free > 0:
                    ready.append(_cut(event, slice(0, free)))
                    self._events[0] = _cut(event, slice(free, None))
                    self._characters = held
                break
            ready.append(self._events.popleft())
            self._characters -= characters
        return ready


def _get_text(event: StreamEvent) -> str:
    """The text or thinking that an event adds."""
    match event:
        case ContentBlockDelta(delta=TextDelta(text=text) | ThinkingDelta(thinking=text)):
            return text
        case _:
            return ""


def _cut(event: StreamEvent, part: slice) -> StreamEvent:
    """Cut the text of a delta."""
    match event:
        case ContentBlockDelta(index=index, delta=TextDelta(text=text)):
            return ContentBlockDelta(index=index, delta=TextDelta(text=text[part]))
        case ContentBlockDelta(index=index, delta=ThinkingDelta(thinking=text)):
            return ContentBlockDelta(index=index, delta=ThinkingDelta(thinking=text[part]))
        case _:
            raise ValueError("only text and thinking are cut")
