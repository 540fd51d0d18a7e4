"""Release of stream events to the client, held back while the guard is undecided."""

from collections.abc import Iterable

from commonweight.messages.events import ContentBlockStart, ContentBlockStop, MessageFold, StreamEvent
from commonweight.messages.response import Message, OutputToolUse


class ReleaseGate:
    """Releases or holds back events, and folds the released ones into a message.

    ``whole_calls``: a call leaves when it is complete, so that whatever ends the message never leaves half of one.
    """

    def __init__(self, *, whole_calls: bool = False) -> None:
        self._whole_calls = whole_calls
        self._held: list[StreamEvent] = []
        self._open: int | None = None
        self._fold = MessageFold()
        self._has_started = False

    @property
    def has_started(self) -> bool:
        """Whether the start of the message was released."""
        return self._has_started

    @property
    def message(self) -> Message:
        """The message as far as it was released."""
        return self._fold.build_message()

    def push(self, events: Iterable[StreamEvent], *, is_held: bool = False) -> list[StreamEvent]:
        """Add events; returns those to send now. ``is_held``: hold all of them."""
        self._held += events
        if is_held:
            return []
        cut = self._find_open_call() if self._whole_calls else len(self._held)
        leaving, self._held = self._held[:cut], self._held[cut:]
        return self._release(leaving)

    def finish(self, events: Iterable[StreamEvent]) -> list[StreamEvent]:
        """End the message with these events: held ones are dropped, and the open block is closed."""
        self._held = []
        closing = [] if self._open is None else [ContentBlockStop(index=self._open)]
        return self._release([*closing, *events])

    def _release(self, events: list[StreamEvent]) -> list[StreamEvent]:
        for event in events:
            self._fold.add(event)
            self._has_started = True
            match event:
                case ContentBlockStart(index=index):
                    self._open = index
                case ContentBlockStop():
                    self._open = None
                case _:
                    pass
        return events

    def _find_open_call(self) -> int:
        """Find the held event that opens an incomplete tool call; the number of events if none does."""
        for i in range(len(self._held) - 1, -1, -1):
            match self._held[i]:
                case ContentBlockStop():
                    break
                case ContentBlockStart(content_block=OutputToolUse()):
                    return i
                case _:
                    pass
        return len(self._held)
