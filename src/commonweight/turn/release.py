"""Release of stream events to the client, held back while the guard is undecided."""

from collections.abc import Iterable

from commonweight.messages.events import ContentBlockStart, ContentBlockStop, MessageFold, StreamEvent
from commonweight.messages.response import Message, OutputToolUse


class ReleaseGate:
    """Releases events, or holds them back, and folds what was released into a message.

    ``whole_calls``: a call leaves when it is complete, so that whatever ends the message never leaves half of one.
    """

    def __init__(self, *, whole_calls: bool = False) -> None:
        self._whole_calls = whole_calls
        self._held: list[StreamEvent] = []
        self._open: int | None = None
        self._fold = MessageFold()
        self._has_begun = False

    @property
    def has_started(self) -> bool:
        """Whether the client knows of the message."""
        return self._has_begun

    @property
    def message(self) -> Message:
        """The message as far as it is told."""
        return self._fold.message()

    def push(self, events: Iterable[StreamEvent], *, is_held: bool = False) -> list[StreamEvent]:
        """Take more events; returns those that leave now. ``is_held``: none does."""
        self._held += events
        if is_held:
            return []
        cut = self._find_open_call() if self._whole_calls else len(self._held)
        leaving, self._held = self._held[:cut], self._held[cut:]
        return self._release(leaving)

    def finish(self, events: Iterable[StreamEvent]) -> list[StreamEvent]:
        """The message ends with these: what is held never leaves, and the block that is open is closed."""
        self._held = []
        closing = [] if self._open is None else [ContentBlockStop(index=self._open)]
        return self._release([*closing, *events])

    def _release(self, events: list[StreamEvent]) -> list[StreamEvent]:
        for event in events:
            self._fold.add(event)
            self._has_begun = True
            match event:
                case ContentBlockStart(index=index):
                    self._open = index
                case ContentBlockStop():
                    self._open = None
                case _:
                    pass
        return events

    def _find_open_call(self) -> int:
        """Where among the held events a call begins that is not complete; their number, if none does."""
        for i in range(len(self._held) - 1, -1, -1):
            match self._held[i]:
                case ContentBlockStop():
                    break
                case ContentBlockStart(content_block=OutputToolUse()):
                    return i
                case _:
                    pass
        return len(self._held)
