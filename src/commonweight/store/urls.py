"""URLs of databases: which are taken, and what the driver gets to connect with."""

import inspect
import re
from typing import Any
from urllib.parse import parse_qsl, urlencode

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

STATEMENT_TIMEOUT_SECONDS = 30
"""Seconds that a statement may take; SQLite's wait for another writer."""
CONNECT_TIMEOUT_SECONDS = 10
"""Seconds in which PostgreSQL must accept a connection, unless the URL says otherwise."""

_SQLITE, _ASYNCPG = "sqlite+aiosqlite", "postgresql+asyncpg"
_OF_SQLALCHEMY = ("prepared_statement_cache_size", "prepared_statement_name_func")
_PASSWORD = re.compile(r"(?<=://)([^:/@]*):.*@")
_QUERY_PASSWORD = re.compile(r"([?&](?:ssl)?password=)[^&]*")


class DatabaseError(Exception):
    """The database is unusable; the message says why, and what to do."""


def parse_database_url(text: str) -> tuple[URL, dict[str, Any]]:
    """The URL for SQLAlchemy, and further arguments for the driver.

    ``postgresql://`` and ``postgres://`` are read by the driver itself, as psql reads them: several hosts, sslmode
    and certificates, and the server's own settings.

    Raises:
        DatabaseError: it is none, or says what no driver here understands.
    """
    scheme, is_url, rest = text.partition("://")
    if is_url and scheme in ("postgresql", "postgres"):
        return make_url(f"{_ASYNCPG}://"), _read_libpq(rest)
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise DatabaseError(f"{hide_password(text)} is no database URL") from error
    if url.drivername == _SQLITE:
        return url, {"timeout": STATEMENT_TIMEOUT_SECONDS}
    if url.drivername != _ASYNCPG:
        raise DatabaseError(
            f"{hide_password(text)}: use a URL that begins with postgresql:// or sqlite+aiosqlite:///"
        )
    known = {*inspect.signature(asyncpg.connect).parameters, *_OF_SQLALCHEMY}
    if unknown := url.query.keys() - known:
        raise DatabaseError(
            f"{hide_password(text)}: {_ASYNCPG}:// knows no {min(unknown)}; "
            "postgresql:// takes the options that psql takes"
        )
    return url, {"timeout": CONNECT_TIMEOUT_SECONDS, "command_timeout": STATEMENT_TIMEOUT_SECONDS}


def hide_password(text: str) -> str:
    """A database URL without its passwords."""
    if "://" not in text:
        return "what was given"
    return _QUERY_PASSWORD.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


def _read_libpq(rest: str) -> dict[str, Any]:
    """Arguments for the driver, of a URL without its scheme."""
    address, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    wait = options.pop("connect_timeout", str(CONNECT_TIMEOUT_SECONDS))
    if not re.fullmatch(r"\d{1,6}", wait, re.ASCII):
        raise DatabaseError(f"connect_timeout={wait} is no number of seconds")
    return {
        "dsn": f"postgresql://{address}" + (f"?{urlencode(options)}" if options else ""),
        "timeout": int(wait) or None,  # 0 waits for ever
        "command_timeout": STATEMENT_TIMEOUT_SECONDS,
    }
