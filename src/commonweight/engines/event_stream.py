"""Events of a running job that wait to be read."""

import asyncio
from collections import deque

from commonweight.engines.contract import EngineError, EngineEvent, Finish


class EventStream:
    """Between who brings a job's events and who reads them: a ``Generation`` of the contract."""

    def __init__(self) -> None:
        self.keep: int | None = None
        self._inbox: deque[EngineEvent | EngineError] = deque()
        self._news = asyncio.Event()
        self._is_over = False

    def put(self, event: EngineEvent | EngineError) -> None:
        """Bring an event to whoever reads."""
        self._inbox.append(event)
        self._news.set()

    def __aiter__(self) -> "EventStream":
        return self

    async def __anext__(self) -> EngineEvent:
        if self._is_over:
            raise StopAsyncIteration
        # What came together is read without going round by the event loop.
        while not self._inbox:
            self._news.clear()
            await self._news.wait()
        event = self._inbox.popleft()
        self._is_over = isinstance(event, (Finish, EngineError))
        if isinstance(event, EngineError):
            raise event
        return event

    def truncate(self, position: int) -> None:
        """Tokens from ``position`` on were not used: they need not be kept when the block is left."""
        self.keep = position
