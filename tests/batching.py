"""Batches in this process: a replaying engine, a database, and a clock that tests can move."""

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from commonweight.batches import BatchRunner, BatchService
from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.catalog.resolve import resolve
from commonweight.engines.contract import EngineError, EngineFullError, Job
from commonweight.prompting import Tokenizer
from commonweight.signing import Purpose, Signer
from commonweight.store import Database
from commonweight.store.batches import Batch
from commonweight.store.schema import batch_items
from commonweight.turn import Assistant, TurnRecord
from replay import Replay, Replaying

Params = dict[str, Any]


class Clock:
    """Seconds since the epoch, as a test says."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Engine(Replay):
    """Says what a script says, when the test lets it."""

    def __init__(self, tokenizer: Tokenizer, script: Callable[[str], str] = lambda _: "Fine.") -> None:
        super().__init__(tokenizer, script)
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = self.most_running = self.cancelled = 0
        self.fails_with: list[EngineError] = []
        """What the next jobs end with."""
        self.deaths = 0
        """How many jobs it still dies of."""

    @contextlib.asynccontextmanager
    async def run(self, job: Job) -> AsyncIterator[Replaying]:
        """Wait at the gate, then fail or answer."""
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self.deaths:
                self.deaths -= 1
                self.is_ready = False
                asyncio.get_running_loop().call_later(0.05, setattr, self, "is_ready", True)
                raise DIED
            if self.fails_with:
                raise self.fails_with.pop(0)
            await self.gate.wait()
            async with super().run(job) as generation:
                yield generation
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


DIED = EngineError("The engine stopped unexpectedly and is being restarted; try again.")
FULL = EngineFullError("1024 requests are running or waiting already; try again later.")


@contextlib.contextmanager
def model() -> Any:
    """The starter's vocabulary and template."""
    with contextlib.closing(Gguf(resolve(None))) as gguf:
        yield ModelCard.from_gguf(gguf), Tokenizer(gguf)


class Office:
    """A desk and a runner on one database: a server without HTTP."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        card: ModelCard,
        tokenizer: Tokenizer,
        clock: Callable[[], float],
        at_once: int = 4,
    ) -> None:
        self.records: list[TurnRecord] = []
        """Of all turns."""
        self.database = database
        self.engine = Engine(tokenizer)
        signer = Signer(bytes(32), Purpose.THINKING_SIGNATURE)
        self.assistant = Assistant(card, tokenizer, self.engine, signer, listeners=[self.records.append])
        self.runner = BatchRunner(self.assistant, database, at_once, now=clock)
        self.desk = BatchService(database, folder, self.runner.wake, now=clock)

    async def create(self, requests: Iterable[Any], tenant: str = "") -> Batch:
        """Hand in a batch."""
        return await self.desk.create(upload({"requests": list(requests)}), tenant, None)

    async def ended(self, batch_id: str, tenant: str = "") -> Batch:
        """The batch, once it has."""
        while (batch := await self.desk.get(tenant, batch_id)).status != "ended":
            await asyncio.sleep(0.02)
        return batch

    async def results(self, batch_id: str, tenant: str = "") -> list[tuple[str, dict[str, Any]]]:
        """All results, by custom id."""
        lines = [line async for line in await self.desk.read_results(tenant, batch_id)]
        read = [json.loads(line) for line in "".join(lines).splitlines()]
        assert all(list(line) == ["custom_id", "result"] for line in read)
        return [(line["custom_id"], line["result"]) for line in read]


def upload(body: object) -> io.BytesIO:
    """A body as it was uploaded."""
    return io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())


def params(text: str = "Hello", **more: Any) -> Params:
    """A small request."""
    return {"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": text}], **more}


def request(custom_id: object, **more: Any) -> dict[str, Any]:
    """A request of a batch."""
    return {"custom_id": custom_id, "params": params(**more)}


def requests(number: int, prefix: str = "r") -> list[dict[str, Any]]:
    """Some of them."""
    return [request(f"{prefix}-{i}", text=f"{prefix} {i}") for i in range(number)]


async def states(database: Database) -> dict[str, int]:
    """How many items of batches there are, by state."""
    query = select(batch_items.c.state, func.count().label("items")).group_by(batch_items.c.state)
    async with database.read() as connection:
        return {row.state: row.items for row in await connection.execute(query)}


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it."""
    while not condition():
        await asyncio.sleep(0.01)


@pytest.fixture(scope="session")
def card_and_tokenizer() -> Iterator[tuple[ModelCard, Tokenizer]]:
    """Its card and its vocabulary."""
    with model() as found:
        yield found


@pytest.fixture
def clock() -> Clock:
    """One for all servers of a test."""
    return Clock()


@pytest.fixture
def office_on(
    card_and_tokenizer: tuple[ModelCard, Tokenizer], tmp_path: Path, clock: Clock
) -> Callable[[Database], Office]:
    """A server on a database."""
    return lambda database: Office(database, tmp_path, *card_and_tokenizer, clock)


@pytest.fixture
def office(office_on: Callable[[Database], Office], database: Database) -> Office:
    """One server."""
    return office_on(database)
