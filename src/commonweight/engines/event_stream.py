"""In-process queue of a running job's events, from the task that receives them to the reader."""

import asyncio
from collections import deque

from commonweight.engines.contract import EngineError, EngineEvent, Finish


class EventStream:
    """Unbounded queue of one job's events that implements the contract's ``Generation``."""

    def __init__(self) -> None:
        self.keep: int | None = None
        self._inbox: deque[EngineEvent | EngineError] = deque()
        self._news = asyncio.Event()
        self._is_over = False

    def put(self, event: EngineEvent | EngineError) -> None:
        """Append an event and wake the reader."""
        self._inbox.append(event)
        self._news.set()

    def __aiter__(self) -> "EventStream":
        return self

    async def __anext__(self) -> EngineEvent:
        if self._is_over:
            raise StopAsyncIteration
        # Events that arrived together are read without a round trip through the event loop.
        while not self._inbox:
            self._news.clear()
            await self._news.wait()
        event = self._inbox.popleft()
        self._is_over = isinstance(event, (Finish, EngineError))
        if isinstance(event, EngineError):
            raise event
        return event

    def truncate(self, position: int) -> None:
        """Tokens from ``position`` on need not be kept in the prefix cache when the block is left."""
        self.keep = position
