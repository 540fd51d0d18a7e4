"""One tenant tries to read, and to time, what another has left in the caches: on the real engine, through HTTP.

Time itself is not measured. What takes time is counted: tokens that the engine computes, texts that are tokenized,
schemas that are checked. If these are the same whatever others did, nothing can be told from the time they take.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from commonweight.access import Keyring
from commonweight.access.keyring import make_key
from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.catalog.resolve import resolve
from commonweight.engines.settings import EngineSettings
from commonweight.messages.request import MessageRequest
from commonweight.messages.response import OutputText, Usage
from commonweight.prompting import Renderer, Tokenizer
from commonweight.prompting.constrain import schema
from commonweight.runtime.assistant import open_assistant
from commonweight.runtime.settings import AssistantSettings
from commonweight.server import create_app
from commonweight.store import Database, make_sqlite_url
from commonweight.store.keys import add_key
from commonweight.turn import Assistant

SETTINGS = AssistantSettings(engine=EngineSettings(context=2048, parallel=4, threads=1, cache_disk=2**30))
SECRET = "The launch code is pear, and nobody else may know that it is. "
secrets = itertools.count()


def conversation(secret: str) -> dict[str, Any]:
    return {
        "model": "any",
        "max_tokens": 1,
        "temperature": 0,
        "system": [
            {"type": "text", "text": secret, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        ],
        "messages": [{"role": "user", "content": "What is the code?"}],
    }


def a_secret() -> str:
    """Long enough for several blocks of the cache, and never seen before."""
    return f"Note {next(secrets)}. " + SECRET * 45


class Service:
    """A server of several tenants, on the real engine."""

    def __init__(self, assistant: Assistant, client: httpx.AsyncClient, keys: dict[str, str]) -> None:
        self.assistant = assistant
        self._client = client
        self._keys = keys

    async def ask(self, key: str, secret: str) -> Usage:
        headers = {"authorization": f"Bearer {self._keys[key]}"}
        answer = await self._client.post("/v1/messages", json=conversation(secret), headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        return Usage.model_validate(answer.json()["usage"])

    async def computed(self, key: str, secret: str) -> int:
        """How many tokens the engine computes for it."""
        before = await self._prefilled()
        await self.ask(key, secret)
        return await self._prefilled() - before

    async def _prefilled(self) -> int:
        while True:
            stats = self.assistant.engine.stats
            if not stats.running and not stats.waiting:
                return stats.prefilled_tokens
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serving(database: Database, keys: dict[str, str]) -> AsyncIterator[Service]:
    async with open_assistant(SETTINGS) as assistant:
        app = create_app(assistant, Keyring(None, database))
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield Service(assistant, client, keys)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """Which kind it is does not matter here."""
    async with Database.open(make_sqlite_url(tmp_path)) as database:
        yield database


@pytest.fixture
async def keys(database: Database) -> dict[str, str]:
    """Alice has two."""
    keys = {}
    for name, tenant in (("alice", "alice"), ("alice's other", "alice"), ("mallory", "mallory"), ("eve", "eve")):
        key = make_key(name, tenant)
        await add_key(database, key.record)
        keys[name] = key.secret
    return keys


@pytest.mark.slow
async def test_a_cached_prefix_is_the_tenants_own(database: Database, keys: dict[str, str]) -> None:
    secret = a_secret()
    async with serving(database, keys) as service:
        first = await service.ask("alice", secret)
        assert first.cache_read_input_tokens == 0
        assert first.cache_creation.ephemeral_1h_input_tokens > 512
        for key in ("alice", "alice's other"):
            assert (await service.ask(key, secret)).cache_read_input_tokens > 512

        # In RAM, and while the other's is being computed.
        assert (await service.ask("mallory", secret)).cache_read_input_tokens == 0
        secret = a_secret()
        alices, mallorys = await asyncio.gather(service.ask("alice", secret), service.ask("mallory", secret))
        for usage in (alices, mallorys):  # but for the template's beginning, which each has sent before
            assert usage.cache_read_input_tokens < 10

        # Guessed piece by piece: what is read is of the guess before.
        for known, end in itertools.pairwise((0, 100, 300, 700, 1500)):
            usage = await service.ask("eve", secret[:end] + " I guess.")
            assert usage.cache_read_input_tokens <= known / 4 + 5

    # On disk, after a restart.
    async with serving(database, keys) as service:
        assert (await service.ask("eve", secret)).cache_read_input_tokens < 512
        assert (await service.ask("alice", secret)).cache_read_input_tokens > 512


@pytest.mark.slow
async def test_nobody_can_tell_from_the_work_what_others_have_cached(
    database: Database, keys: dict[str, str]
) -> None:
    async with serving(database, keys) as service:
        unknown, known = a_secret(), a_secret()
        cold = await service.computed("alice", known)
        warm = await service.computed("alice", known)
        assert warm < cold / 10
        assert await service.computed("mallory", known) == await service.computed("mallory", unknown) == cold


class Counting:
    """A tokenizer that counts what it is asked for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.characters = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._tokenizer, name)

    def encode(self, text: str, **more: Any) -> list[int]:
        self.characters += len(text)
        return self._tokenizer.encode(text, **more)


def test_texts_that_others_sent_are_tokenized_anew() -> None:
    with contextlib.closing(Gguf(resolve(None))) as gguf:
        tokenizer = Counting(Tokenizer(gguf))
        renderer = Renderer(tokenizer, ModelCard.from_gguf(gguf).chat_template)  # type: ignore[arg-type]
        request = MessageRequest.model_validate(conversation(a_secret()))

        def work(tenant: str) -> int:
            tokenizer.characters = 0
            renderer.render(request, tenant)
            return tokenizer.characters

        cold = work("alice")
        assert work("alice") < cold / 10
        assert work("mallory") == cold


def test_what_was_generated_for_others_changes_no_prompt() -> None:
    with contextlib.closing(Gguf(resolve(None))) as gguf:
        tokenizer = Tokenizer(gguf)
        template = ModelCard.from_gguf(gguf).chat_template
        renderer, fresh = Renderer(tokenizer, template), Renderer(tokenizer, template)
        body = conversation("Be brief.")
        asked = MessageRequest.model_validate(body)
        spelled = [token_id for letter in "pear" for token_id in tokenizer.encode(letter, continues=True)]
        renderer.remember_answer(renderer.render(asked, "alice"), [OutputText(text="pear")], spelled, "")
        more = [{"role": "assistant", "content": "pear"}, {"role": "user", "content": "Thanks."}]
        then = MessageRequest.model_validate(body | {"messages": body["messages"] + more})
        canonical = fresh.render(then).token_ids
        assert renderer.render(then, "alice").token_ids != canonical
        assert renderer.render(then, "mallory").token_ids == canonical


def test_schemas_that_others_sent_are_checked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = 0
    problem = schema._find_problem

    def counted(text: str) -> str:
        nonlocal checked
        checked += 1
        return problem(text)

    monkeypatch.setattr(schema, "_find_problem", counted)
    with contextlib.closing(Gguf(resolve(None))) as gguf:
        renderer = Renderer(Tokenizer(gguf), ModelCard.from_gguf(gguf).chat_template)
        tool = {"name": "launch", "input_schema": {"type": "object", "properties": {"pear": {"type": "string"}}}}
        request = MessageRequest.model_validate(conversation("") | {"tools": [tool]})

        def work(tenant: str) -> int:
            nonlocal checked
            checked = 0
            renderer.render(request, tenant)
            return checked

        cold = work("alice")
        assert cold > 0
        assert work("alice") == 0
        assert work("mallory") == cold
