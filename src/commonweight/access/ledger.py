"""Usage ledger: records of turns, written to the database in the background."""

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

from commonweight.store import Database
from commonweight.store.failures import FAILURES, get_reason
from commonweight.store.usage import SECONDS_PER_DAY, StoredContent, UsageRecord, add_usage, forget_contents
from commonweight.turn import TurnRecord

log = logging.getLogger(__name__)

LEDGER_FLUSH_SECONDS = 0.25
"""Seconds in which records gather that are written together."""
MAX_RECORDS_PER_WRITE = 500
MAX_PENDING_RECORDS = 50_000
"""Records that wait for a database that is gone; then the oldest are lost."""
MAX_PENDING_CHARACTERS = 64 * 2**20
"""Characters of contents that wait; more is not kept."""
WRITE_RETRY_SECONDS = 5.0
"""Seconds until a failed write is tried again."""
CLOSE_TIMEOUT_SECONDS = 10.0
"""Seconds that the last records get to be written when the server ends."""
SWEEP_INTERVAL_SECONDS = 600.0
"""Seconds between looks for contents whose time is over."""


class Ledger:
    """Background writer of usage records. Contents are kept for ``keep_content`` days; None keeps none."""

    def __init__(
        self, database: Database, keep_content: float | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._keep_content = keep_content
        self._now = now
        self._records: deque[tuple[UsageRecord, StoredContent | None]] = deque()
        self._characters = 0
        self._lost = 0
        self._news = asyncio.Event()
        self._is_closing = False

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, database: Database, keep_content: float | None = None) -> AsyncIterator["Ledger"]:
        """A ledger that writes until the block is left, and then what is still there."""
        ledger = cls(database, keep_content)
        writing, sweeping = asyncio.create_task(ledger._write()), asyncio.create_task(ledger._sweep())
        try:
            yield ledger
        finally:
            sweeping.cancel()
            ledger._is_closing = True
            ledger._news.set()
            _, late = await asyncio.wait({writing}, timeout=CLOSE_TIMEOUT_SECONDS)
            writing.cancel()
            await asyncio.gather(writing, sweeping, return_exceptions=True)
            if late or ledger._records:
                log.error("%d usage records could not be written, and are lost", len(ledger._records))

    def on_turn(self, record: TurnRecord) -> None:
        """Queue a record."""
        if len(self._records) >= MAX_PENDING_RECORDS:
            self._drop()
        content = self._make_content(record)
        self._records.append((_make_usage_record(record), content))
        self._characters += _measure_size(content)
        self._news.set()

    def _make_content(self, record: TurnRecord) -> StoredContent | None:
        if self._keep_content is None:
            return None
        if self._characters > MAX_PENDING_CHARACTERS:
            log.warning("the content of %s is not kept: too much waits to be written", record.origin.request_id)
            return None
        message = record.message()
        try:
            request = record.request.model_dump_json(exclude_unset=True)
        except ValueError:  # a lone surrogate, in a field where it is allowed
            request = "null"
        return StoredContent(
            request_id=record.origin.request_id,
            tenant=record.origin.tenant,
            request=request,
            response=None if message is None else message.model_dump_json(),
            expires_at=record.times.begun_at + self._keep_content * SECONDS_PER_DAY,
        )

    def _drop(self) -> None:
        _, content = self._records.popleft()
        self._characters -= _measure_size(content)
        self._lost += 1
        if self._lost == 1 or self._lost % 1000 == 0:
            log.error("%d usage records are lost: the database takes none", self._lost)

    async def _write(self) -> None:
        while self._records or not self._is_closing:
            if not self._records:
                self._news.clear()
                await self._news.wait()
            if not self._is_closing:
                await asyncio.sleep(LEDGER_FLUSH_SECONDS)
            # They stay where they are until they are written: nothing is lost between here and there.
            batch = [self._records[i] for i in range(min(MAX_RECORDS_PER_WRITE, len(self._records)))]
            lost = self._lost
            try:
                await add_usage(
                    self._database, [usage for usage, _ in batch], [content for _, content in batch if content]
                )
            except FAILURES as error:
                log.warning(
                    "%d usage records wait: the database takes none (%s)", len(self._records), get_reason(error)
                )
                await asyncio.sleep(1 if self._is_closing else WRITE_RETRY_SECONDS)
                continue
            for _, content in batch[self._lost - lost :]:
                self._records.popleft()
                self._characters -= _measure_size(content)

    async def _sweep(self) -> None:
        while True:
            try:
                await forget_contents(self._database, self._now())
            except FAILURES as error:
                log.warning("contents whose time is over could not be deleted (%s)", get_reason(error))
            await asyncio.sleep(SWEEP_INTERVAL_SECONDS)


def _make_usage_record(record: TurnRecord) -> UsageRecord:
    usage, origin, times = record.usage, record.origin, record.times
    return UsageRecord(
        request_id=origin.request_id,
        at=times.begun_at,
        tenant=origin.tenant,
        key_id=origin.key_id,
        kind="batch" if origin.priority == "batch" else "message",
        model=record.served_by[:200],  # what clients call it may be anything
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cache_read_input_tokens,
        cache_5m_tokens=usage.cache_creation.ephemeral_5m_input_tokens,
        cache_1h_tokens=usage.cache_creation.ephemeral_1h_input_tokens,
        output_tokens=usage.output_tokens,
        thinking_tokens=usage.output_tokens_details.thinking_tokens,
        stop_reason=record.stop_reason,
        error=record.error,
        verdict=json.dumps(record.findings.to_record()) if record.findings else None,
        first_token_seconds=times.first_token,
        seconds=times.total,
    )


def _measure_size(content: StoredContent | None) -> int:
    return 0 if content is None else len(content.request) + len(content.response or "")
