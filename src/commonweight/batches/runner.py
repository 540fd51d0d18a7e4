"""Batch runner: claims items and runs them at low priority, a few at a time."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TypeVar

import pydantic_core
from pydantic import ValidationError

from commonweight.batches.round_robin import RoundRobin
from commonweight.messages.batches import ErroredResult, SucceededResult
from commonweight.messages.errors import ApiError, InvalidRequestError, OverloadedError, make_invalid_request_error
from commonweight.messages.events import fold_stream
from commonweight.messages.request import MessageRequest
from commonweight.messages.response import Message, make_id
from commonweight.store import Database
from commonweight.store.batch_items import BatchItemStore, Claim, ItemOutcome
from commonweight.store.batches import BatchStore
from commonweight.turn import Assistant, Origin

log = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
"""Seconds without renewal after which another server runs an item again."""
RENEW_INTERVAL_SECONDS = LEASE_SECONDS / 3
POLL_INTERVAL_SECONDS = 2.0
"""Seconds between queries for batches created through other servers."""
RESULT_RETENTION_SECONDS = 29 * 24 * 60 * 60
"""Seconds from a batch's creation until its results are removed."""
MAX_CRASHES = 3
"""Engine crashes during one item after which it counts as errored, and likewise deaths of servers."""
MAX_RETRY_DELAY_SECONDS = 30.0
"""Seconds between attempts when the engine or the database cannot be used."""
ROWS_PER_TRANSACTION = 1000
"""Rows changed in one transaction, so that other writers get in between."""

T = TypeVar("T")


class BatchRunner:
    """Runs batches inside of :meth:`running`. Several servers may share one database."""

    def __init__(
        self, assistant: Assistant, database: Database, at_once: int = 8, now: Callable[[], float] = time.time
    ) -> None:
        self._assistant = assistant
        self._batches = BatchStore(database)
        self._items = BatchItemStore(database, make_id("runner"))
        self._now = now
        self._slots = asyncio.Semaphore(at_once)
        self._rotation = RoundRobin()
        self._work: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._has_waiting, self._has_news = asyncio.Event(), asyncio.Event()
        self._suspects = asyncio.Semaphore(1)

    def wake(self) -> None:
        """Look at the database now, because a batch was created or changed."""
        self._has_waiting.set()
        self._has_news.set()

    @contextlib.asynccontextmanager
    async def run_in_background(self) -> AsyncIterator[None]:
        """Run batches until the block ends. Unfinished items are released to other runners."""
        loops = [asyncio.create_task(self._claim_forever()), asyncio.create_task(self._maintain_forever())]
        try:
            yield
        finally:
            await _cancel(*loops)
            await _cancel(*self._work.values())
            try:
                await self._items.release_all()
            except Exception as error:
                log.warning("items of batches wait until their leases end: %s", error)

    # Taking items

    async def _claim_forever(self) -> None:
        while True:
            await self._slots.acquire()
            claim = await _retry_until_done(self._claim)
            if claim is not None:
                task = self._work[claim.item_key] = asyncio.create_task(self._run(claim))
                task.add_done_callback(partial(self._release_slot, claim.item_key))
                continue
            self._slots.release()
            await _wait_for_event(self._has_waiting, POLL_INTERVAL_SECONDS)

    async def _claim(self) -> Claim | None:
        for batch in self._rotation.order(await self._items.list_open(self._now())):
            if claim := await self._items.claim(batch, self._now() + LEASE_SECONDS):
                self._rotation.serve(batch)
                return claim
        return None

    def _release_slot(self, place: tuple[str, int], task: asyncio.Task[None]) -> None:
        self._slots.release()
        self._has_waiting.set()  # it may have been what others could not run beside
        if self._work.get(place) is task:
            del self._work[place]
        if not task.cancelled() and (error := task.exception()):
            log.error("an item of a batch failed (%s, %s)", *place, exc_info=error)

    # Running one

    async def _run(self, claim: Claim) -> None:
        state, result = await self._run_with_retries(claim)
        await _retry_until_done(lambda: self._items.record(*claim.item_key, state, result))
        await _retry_until_done(lambda: self._batches.end_if_done(claim.batch.id, self._now()))

    async def _run_with_retries(self, claim: Claim) -> tuple[ItemOutcome, str]:
        """Outcome of the item, retried while the engine is full or has crashed."""
        crashes = attempts = 0
        while True:
            request_id = make_id("req")
            batch = claim.batch
            origin = Origin(request_id, batch.tenant, batch.key_id, "batch", batch.waived)
            try:
                # Once the engine has died with it, an item runs beside no other suspect, so that those which were
                # just in bad company do not share the blame.
                async with self._suspects if crashes else contextlib.nullcontext():
                    message = await self._generate(claim.params, origin)
                return "succeeded", SucceededResult(message=message).model_dump_json()
            except OverloadedError:
                pass
            except ApiError as error:
                has_died = error.status >= 500 and not self._assistant.engine.is_ready
                crashes += has_died
                if not has_died or crashes == MAX_CRASHES:
                    return _make_errored_result(error, request_id)
            except Exception:
                log.exception("an item of a batch failed (%s, %s)", *claim.item_key)
                return _make_errored_result(ApiError("Internal server error"), request_id)
            await asyncio.sleep(min(2.0**attempts, MAX_RETRY_DELAY_SECONDS))
            attempts += 1
            while not self._assistant.engine.is_ready:  # noqa: ASYNC110 - engines, also remote ones, tell no more
                await asyncio.sleep(0.25)

    async def _generate(self, params: str, origin: Origin) -> Message:
        request = await asyncio.to_thread(_parse_request, params)
        turn = await self._assistant.prepare(request, origin, len(params))
        return await fold_stream(self._assistant.stream(turn))

    # Maintenance

    async def _maintain_forever(self) -> None:
        while True:
            await _retry_until_done(self._maintain)
            await _wait_for_event(self._has_news, RENEW_INTERVAL_SECONDS)

    async def _maintain(self) -> None:
        now = self._now()
        work = dict(self._work)
        held = await self._items.renew(work.keys(), now + LEASE_SECONDS)
        await _cancel(*(task for place, task in work.items() if place not in held))
        await self._requeue_expired(now)
        # What takes long is done in portions, each time a little, since leases must be renewed in between.
        is_left = [await self._end_items(*batch) for batch in await self._items.list_stopping(now)]
        for batch_id in await self._items.list_finished():
            await self._batches.end_if_done(batch_id, self._now())
        await self._batches.delete_abandoned(now)
        await self._batches.archive(now - RESULT_RETENTION_SECONDS, now)
        is_left.append(await self._batches.purge_deleted(ROWS_PER_TRANSACTION))
        if any(is_left):
            self._has_news.set()

    async def _requeue_expired(self, now: float) -> None:
        error = ApiError(f"The request was given up: {MAX_CRASHES} times the server that ran it stopped meanwhile")
        _, result = _make_errored_result(error, make_id("req"))
        for item in await self._items.requeue_expired(now, MAX_CRASHES, result):
            log.error("an item of a batch is given up, because servers die while they run it (%s, %s)", *item)

    async def _end_items(self, batch_id: str, ending: ItemOutcome) -> bool:
        """End some remaining items of a canceled or expired batch; whether more may remain."""
        work = {place: task for place, task in self._work.items() if place[0] == batch_id}
        await _cancel(*work.values())
        for place in work:
            await self._items.record(*place, ending)
        return await self._items.settle(batch_id, ending, ROWS_PER_TRANSACTION)


async def _wait_for_event(event: asyncio.Event, patience: float) -> None:
    """Wait for an event or a timeout, and clear the event."""
    # Not wait_for: in Python 3.11 it loses a cancellation that comes just when what it waits for is there.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            await event.wait()
    event.clear()


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _retry_until_done(work: Callable[[], Awaitable[T]]) -> T:
    """Result of work with the database, retried until it succeeds."""
    attempts = 0
    while True:
        try:
            return await work()
        except Exception as error:
            pause = min(2.0**attempts, MAX_RETRY_DELAY_SECONDS)
            log.warning("batches: %s: %s; trying again in %d s", type(error).__name__, error, pause)
        await asyncio.sleep(pause)
        attempts += 1


def _parse_request(params: str) -> MessageRequest:
    try:
        return MessageRequest.model_validate(pydantic_core.from_json(params, allow_inf_nan=False))
    except ValidationError as error:
        raise make_invalid_request_error(error) from error
    except ValueError as error:
        raise InvalidRequestError(f"The request is not valid JSON: {error}") from error


def _make_errored_result(error: ApiError, request_id: str) -> tuple[ItemOutcome, str]:
    # In ASCII, because the message may quote what no database takes.
    return "errored", json.dumps(ErroredResult(error=error.to_body(request_id)).model_dump())
