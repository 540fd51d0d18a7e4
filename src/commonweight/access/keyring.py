"""Authentication by API key, in ``x-api-key`` or ``Authorization: Bearer``.

There is the one key that an operator may give when the server starts, and there are those in the database. While
there is neither, everyone may come in: that is for a server that only its own machine can reach.
"""

import asyncio
import hashlib
import hmac
import math
import secrets
import string
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from commonweight.access.principal import SCOPES, UNLIMITED, Limits, Principal, Scope
from commonweight.messages.errors import AuthenticationError, UnavailableError
from commonweight.messages.response import make_id
from commonweight.store import Database
from commonweight.store.failures import FAILURES
from commonweight.store.keys import ApiKey, find_key, has_keys

PREFIX = "sk-cw-"
CACHE_SECONDS = 2.0
"""Seconds for which the database is not asked again: so long may a key work that was just revoked."""
MAX_CACHED_KEYS = 10_000
"""Keys that are remembered."""
_LETTERS = string.ascii_letters + string.digits
_RANDOM_CHARACTERS = 40  # letters: 238 bits
_HINT_CHARACTERS = 4  # of them, in lists

Found = TypeVar("Found")


@dataclass(frozen=True)
class NewKey:
    """New API key: the secret, and the record that is stored."""

    secret: str
    """To be shown once, and then forgotten."""
    record: ApiKey

    def __repr__(self) -> str:
        return f"NewKey({self.record})"


def make_key(
    name: str,
    tenant: str,
    scopes: frozenset[Scope] = SCOPES - {"admin"},
    limits: Limits = UNLIMITED,
    lifetime: float | None = None,
    now: float | None = None,
    waived: frozenset[str] = frozenset(),
) -> NewKey:
    """A fresh random key. ``lifetime`` is in seconds; None: it does not expire."""
    now = time.time() if now is None else now
    secret = PREFIX + "".join(secrets.choice(_LETTERS) for _ in range(_RANDOM_CHARACTERS))
    record = ApiKey(
        id=make_id("key"),
        name=name,
        tenant=tenant,
        digest=_hash_secret(secret),
        hint=secret[: len(PREFIX) + _HINT_CHARACTERS],
        scopes=" ".join(scope for scope in get_args(Scope) if scope in scopes),
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        concurrency=limits.concurrency,
        created_at=now,
        waived=" ".join(sorted(waived)),
        expires_at=None if lifetime is None else now + lifetime,
    )
    return NewKey(secret, record)


class Keyring:
    """All valid keys: the operator's from the command line, and those in the database."""

    def __init__(
        self, key: str | None, database: Database | None = None, now: Callable[[], float] = time.time
    ) -> None:
        if key == "":
            raise ValueError("an empty key would let everyone in")
        self._digest = None if key is None else _hash_secret(key)
        self._database = database
        self._now = now
        self._is_locked = key is not None
        self._looked_at = -math.inf
        self._found: OrderedDict[str, tuple[float, ApiKey]] = OrderedDict()
        self._searches: dict[str, asyncio.Task[Any]] = {}

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """The principal of a request's headers. Of two keys, ``x-api-key`` counts.

        Raises:
            AuthenticationError: it shows no key where one is needed, or a wrong one.
            UnavailableError: the database cannot be asked.
        """
        try:
            return await self._find_principal(headers)
        except FAILURES as error:
            # A key that was valid a minute ago may have been revoked since, so none is accepted.
            raise UnavailableError("API keys cannot be checked at the moment", retry_after=5) from error

    async def needs_key(self) -> bool:
        """Whether a key is asked for: because the operator gave one, or one was ever created."""
        # Keys are revoked, but never deleted. A database that forgets them all does not open the door again.
        if self._is_locked or self._database is None:
            return self._is_locked
        if time.monotonic() - self._looked_at >= CACHE_SECONDS:
            await self._share_search("", self._look(self._database))
        return self._is_locked

    async def _find_principal(self, headers: Mapping[str, str]) -> Principal:
        if not await self.needs_key():
            return Principal()
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        is_bearer = "x-api-key" not in headers and scheme.lower() == "bearer"
        shown = bearer.strip() if is_bearer else headers.get("x-api-key")
        if shown is None:
            raise AuthenticationError("x-api-key header is required")
        digest = _hash_secret(shown)
        # Digests are compared, so that not even the length of a key can be told from the time it takes.
        if self._digest is not None and hmac.compare_digest(digest, self._digest):
            return Principal()
        key = None
        if self._database is not None and shown.startswith(PREFIX):
            key = await self._find_key(self._database, digest)
        if key is None or not hmac.compare_digest(digest, key.digest) or not key.is_valid(self._now()):
            raise AuthenticationError("Invalid bearer token" if is_bearer else "invalid x-api-key")
        return _make_principal(key)

    async def _find_key(self, database: Database, digest: str) -> ApiKey | None:
        at, key = self._found.get(digest, (-math.inf, None))
        if time.monotonic() - at >= CACHE_SECONDS:
            key = await self._share_search(digest, self._find(database, digest))
        return key

    async def _look(self, database: Database) -> None:
        self._is_locked = await has_keys(database)
        self._looked_at = time.monotonic()

    async def _find(self, database: Database, digest: str) -> ApiKey | None:
        at = time.monotonic()
        key = await find_key(database, digest)
        if key is not None:  # what is not there may be created at any moment
            self._found[digest] = at, key
            self._found.move_to_end(digest)
            if len(self._found) > MAX_CACHED_KEYS:
                self._found.popitem(last=False)
        return key

    async def _share_search(self, name: str, search: Coroutine[Any, Any, Found]) -> Found:
        """Join a running query of this name, or start one, so that concurrent requests share it."""
        running = self._searches.get(name)
        if running is None:
            running = self._searches[name] = asyncio.create_task(search)
            running.add_done_callback(lambda _: self._searches.pop(name))
        else:
            search.close()
        found: Found = await asyncio.shield(running)
        return found


def _make_principal(key: ApiKey) -> Principal:
    scopes = frozenset(scope for scope in SCOPES if scope in key.scopes.split())
    limits = Limits(key.requests_per_minute, key.tokens_per_minute, key.concurrency)
    return Principal(key.tenant, key.id, scopes, limits, frozenset(key.waived.split()))


def _hash_secret(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
