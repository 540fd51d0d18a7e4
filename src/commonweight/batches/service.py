"""Batch service: create, list, retrieve, cancel and delete message batches."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from commonweight.batches.upload import read_requests
from commonweight.messages.errors import InvalidRequestError, NotFoundError
from commonweight.messages.response import make_id
from commonweight.store import Database
from commonweight.store.batches import Batch, BatchStore, NewItem

MAX_UPLOAD_BYTES = 256 * 1024 * 1024
"""Bytes of the body that creates a batch."""
BATCH_LIFETIME_SECONDS = 24 * 60 * 60
"""Seconds until what is not answered expires."""
UPLOAD_TIMEOUT_SECONDS = 120
"""Seconds after which a batch that is being received counts as given up, because nothing more of it came."""
ITEMS_PER_WRITE, CHARACTERS_PER_WRITE = 500, 4 * 1024 * 1024
"""Items, and characters, that are written in one transaction."""
RESULTS_PER_READ = 100
"""Results that are read at once."""

_ID = re.compile(r"msgbatch_[0-9A-Za-z]{1,50}")


class BatchService:
    """Message batches of all tenants; every call is restricted to one tenant."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        on_change: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        """Folder for uploads while they are parsed; they may be large."""
        self._store = BatchStore(database)
        self._on_change = on_change
        self._now = now
        self._reading = asyncio.Semaphore(1)

    async def create(self, upload: BinaryIO, tenant: str, key_id: str | None) -> Batch:
        """Create a batch from its upload, completely or not at all.

        Raises:
            InvalidRequestError, RequestTooLargeError: in the API's words.
        """
        batch_id = make_id("msgbatch")
        async with self._reading:  # seconds of work, and the memory it takes, once and not many times
            now = self._now()
            await self._store.begin(batch_id, tenant, key_id, now, now + UPLOAD_TIMEOUT_SECONDS)
            try:
                batch = await self._receive(batch_id, upload)
            except BaseException:
                await asyncio.shield(self._store.delete(batch_id))
                raise
        self._on_change()
        return batch

    async def _receive(self, batch_id: str, upload: BinaryIO) -> Batch:
        total = 0
        portions = _read_portions(upload)
        while portion := await asyncio.to_thread(next, portions, None):
            await self._store.add(batch_id, portion, self._now() + UPLOAD_TIMEOUT_SECONDS)
            total += len(portion)
        now = self._now()
        return await self._store.complete(batch_id, total, now, now + BATCH_LIFETIME_SECONDS)

    async def get(self, tenant: str, batch_id: str) -> Batch:
        """A batch.

        Raises:
            NotFoundError: the tenant has none of this id.
        """
        return await self._find(tenant, batch_id) or _raise_not_found(batch_id)

    async def list_page(
        self, tenant: str, limit: int, after_id: str | None, before_id: str | None
    ) -> tuple[list[Batch], bool]:
        """A page of batches, newest first, and whether there are more.

        Raises:
            InvalidRequestError: a cursor is none of the tenant's batches.
        """
        cursors = [None if name is None else await self._find(tenant, name) for name in (after_id, before_id)]
        for name, cursor in zip((after_id, before_id), cursors, strict=True):
            if name is not None and cursor is None:
                raise InvalidRequestError(f"no batch has the id {name!r}")
        return await self._store.list_newest(tenant, limit, *cursors)

    async def cancel(self, tenant: str, batch_id: str) -> Batch:
        """Cancel a batch: unclaimed items are canceled, running ones stopped.

        Raises:
            NotFoundError: the tenant has none of this id.
            InvalidRequestError: it has ended.
        """
        await self.get(tenant, batch_id)
        batch = await self._store.cancel(tenant, batch_id, self._now()) or _raise_not_found(batch_id)
        if batch.status == "ended":
            raise InvalidRequestError(f"Message Batch {batch_id} has ended and can no longer be canceled")
        self._on_change()
        return batch

    async def delete(self, tenant: str, batch_id: str) -> None:
        """Delete a batch that has ended.

        Raises:
            NotFoundError: the tenant has none of this id.
            InvalidRequestError: it has not ended.
        """
        await self.get(tenant, batch_id)
        if not await self._store.delete(batch_id):
            raise InvalidRequestError(
                f"Message Batch {batch_id} cannot be deleted while it is processing; cancel it first"
            )
        self._on_change()

    async def read_results(self, tenant: str, batch_id: str) -> AsyncIterator[str]:
        """Results as JSON Lines, one per request, read from the database while they are sent.

        Raises:
            NotFoundError: there are no such results, not yet, or not any more.
        """
        batch = await self.get(tenant, batch_id)
        if batch.status != "ended":
            raise NotFoundError(f"Message Batch {batch_id} has no results yet: it is still processing")
        if batch.archived_at is not None:
            raise NotFoundError(f"The results of Message Batch {batch_id} are no longer available")
        return self._read_lines(batch)

    async def _find(self, tenant: str, batch_id: str) -> Batch | None:
        # Clients may ask for anything, and PostgreSQL takes not every text.
        return await self._store.get(tenant, batch_id) if _ID.fullmatch(batch_id) else None

    async def _read_lines(self, batch: Batch) -> AsyncIterator[str]:
        last, told = -1, 0
        while page := await self._store.read_results(batch.id, last, RESULTS_PER_READ):
            yield "".join(
                f'{{"custom_id":{json.dumps(item.custom_id)},"result":{item.result or _encode(item.state)}}}\n'
                for item in page
            )
            last, told = page[-1].number, told + len(page)
        if told < batch.total:  # deleted meanwhile: the client must not take this for everything
            raise RuntimeError(f"the results of {batch.id} went while they were read")


def _read_portions(upload: BinaryIO) -> Iterator[list[NewItem]]:
    portion: list[NewItem] = []
    size = 0
    for number, request in enumerate(read_requests(upload)):
        try:
            # In ASCII, because databases do not take every character that JSON can name.
            params = json.dumps(request.params, allow_nan=False, separators=(",", ":"))
        except ValueError as error:
            raise InvalidRequestError(f"requests.{number}.params: {error}") from error
        portion.append(NewItem(number, request.custom_id, params))
        size += len(params)
        if len(portion) == ITEMS_PER_WRITE or size > CHARACTERS_PER_WRITE:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _encode(state: str) -> str:
    return json.dumps({"type": state})


def _raise_not_found(batch_id: str) -> NoReturn:
    raise NotFoundError(f"Message Batch {batch_id} not found")
