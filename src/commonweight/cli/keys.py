"""``commonweight keys``: create, list and revoke API keys."""

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commonweight.cli.durations import format_day, format_moment, parse_duration
from commonweight.cli.options import AsJson, DatabaseUrl, DataPath
from commonweight.cli.terminal import make_console, print_json
from commonweight.runtime.errors import UserError

if TYPE_CHECKING:
    from commonweight.access.keyring import NewKey
    from commonweight.store.keys import ApiKey

commands = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)

_LONGEST = 200  # characters, as the database keeps them
_MOST = 1_000_000_000


def _make_limit_option(help_text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        min=1, max=_MOST, metavar="N", help=help_text, show_default=False, rich_help_panel="Limits"
    )
    return option


@commands.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What or whom the key is for.")],
    tenant: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Keys of one tenant share their batches, files, and cached prompts. Default: the key's name.",
            show_default=False,
        ),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCOPE",
            help="What it is good for: `models`, `batches`, `files` or `admin`; may repeat. "
            "Default: all but `admin`.",
            show_default=False,
        ),
    ] = None,
    expires: Annotated[
        float | None,
        typer.Option(
            parser=parse_duration, metavar="TIME", help="How long it works, such as 90d.", show_default=False
        ),
    ] = None,
    requests_per_minute: Annotated[int | None, _make_limit_option("Requests a minute.")] = None,
    tokens_per_minute: Annotated[
        int | None,
        _make_limit_option("Tokens a minute, of prompts and answers; what came from the cache is free."),
    ] = None,
    concurrency: Annotated[int | None, _make_limit_option("Requests at the same time.")] = None,
    waive: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PRINCIPLE",
            help="Set a principle of the charter aside for this key, if the charter lets operators do that; "
            "may repeat.",
            show_default=False,
        ),
    ] = None,
    data: DataPath = None,
    database: DatabaseUrl = None,
) -> None:
    """Create a key, and show it: this one time only."""
    import asyncio

    from commonweight.access import SCOPES, Limits
    from commonweight.access.keyring import make_key
    from commonweight.runtime.data import DataFolder

    for what, text in (("name", name), ("tenant", name if tenant is None else tenant)):
        if not text.strip() or not text.isprintable() or len(text) > _LONGEST:
            raise UserError(f"a key's {what} has from 1 to {_LONGEST} printable characters")
    if bad := [one for one in waive or () if not re.fullmatch(r"[a-z0-9-]{1,40}", one)]:
        raise UserError(f"{bad[0]!r} is no id of a principle; see `commonweight charter show`")
    if unknown := set(scope or ()) - SCOPES:
        raise UserError(f"there is no scope {min(unknown)!r}; there are {', '.join(sorted(SCOPES))}")
    key = make_key(
        name,
        name if tenant is None else tenant,
        frozenset(one for one in SCOPES if one in scope) if scope else SCOPES - {"admin"},
        Limits(requests_per_minute, tokens_per_minute, concurrency),
        expires,
        waived=frozenset(waive or ()),
    )
    others = asyncio.run(_add(DataFolder.from_options(data, database).database_url, key))
    make_console(stderr=True).print(
        f"{key.record.id}, tenant {key.record.tenant}" + (f" together with {', '.join(others)}" if others else ""),
        "The key is shown once and kept nowhere; put it in a safe place:",
        sep="\n",
        soft_wrap=True,
    )
    typer.echo(key.secret)


async def _add(url: str, key: "NewKey") -> list[str]:
    """Store a key; returns the names of its tenant's other keys."""
    from commonweight.store import Database
    from commonweight.store.keys import NameTakenError, add_key, list_keys

    async with Database.open(url) as database:
        others = [other.name for other in await list_keys(database) if other.tenant == key.record.tenant]
        try:
            await add_key(database, key.record)
        except NameTakenError as error:
            raise UserError(
                f"there is a key {str(error)!r} already; revoke it first, or take another name"
            ) from error
    return others


@commands.command("list")
def list_keys(as_json: AsJson = False, data: DataPath = None, database: DatabaseUrl = None) -> None:
    """List all keys that there ever were."""
    import asyncio

    from rich.table import Table

    from commonweight.runtime.data import DataFolder

    found = asyncio.run(_list(DataFolder.from_options(data, database).database_url))
    if as_json:
        print_json({"keys": [_describe(key) for key in found]})
        return
    table = Table("key", "tenant", "scopes", "limits", "state")
    table.columns[0].overflow = "fold"
    table.columns[0].min_width = 28  # an id is to be copied
    for key in found:
        table.add_row(
            f"{key.name}\n{key.hint}...\n{key.id}",
            key.tenant,
            key.scopes,
            "\n".join(_list_limits(key)),
            f"created {format_day(key.created_at)}\n{_format_state(key)}",
            style="" if key.is_valid(time.time()) else "dim",
        )
    make_console().print(table)


def _describe(key: "ApiKey") -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "hint": key.hint,
        "scopes": key.scopes.split(),
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_minute": key.tokens_per_minute,
        "concurrency": key.concurrency,
        "waived": key.waived.split(),
        "is_valid": key.is_valid(time.time()),
        "created_at": format_moment(key.created_at),
        "expires_at": format_moment(key.expires_at),
        "revoked_at": format_moment(key.revoked_at),
    }


def _list_limits(key: "ApiKey") -> Iterator[str]:
    for limit, what in (
        (key.requests_per_minute, "requests/min"),
        (key.tokens_per_minute, "tokens/min"),
        (key.concurrency, "at once"),
    ):
        if limit is not None:
            yield f"{limit:,} {what}"
    for principle in key.waived.split():
        yield f"without {principle}"


async def _list(url: str) -> "list[ApiKey]":
    from commonweight.store import Database
    from commonweight.store.keys import list_keys

    async with Database.open(url) as database:
        return await list_keys(database)


def _format_state(key: "ApiKey") -> str:
    if key.revoked_at is not None:
        return f"revoked {format_day(key.revoked_at)}"
    if key.expires_at is None:
        return "valid"
    return (
        f"valid until {format_day(key.expires_at)}"
        if key.is_valid(time.time())
        else f"expired {format_day(key.expires_at)}"
    )


@commands.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID_OR_NAME", help="Of the key; see `keys list`.")],
    data: DataPath = None,
    database: DatabaseUrl = None,
) -> None:
    """Revoke a key, for good. Running servers notice within seconds."""
    import asyncio

    from commonweight.runtime.data import DataFolder

    revoked = asyncio.run(_revoke(DataFolder.from_options(data, database).database_url, key))
    if not revoked:
        raise UserError(f"there is no key {key!r} that works")
    for one in revoked:
        make_console().print(f"{one.name} ({one.id}) works no longer.", soft_wrap=True)


async def _revoke(url: str, key: str) -> "list[ApiKey]":
    from commonweight.store import Database
    from commonweight.store.keys import revoke_keys

    async with Database.open(url) as database:
        return await revoke_keys(database, key, time.time())
