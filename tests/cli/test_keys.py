"""``commonweight keys`` and ``commonweight usage``, with a server that they are for; and that no key leaks."""

import csv
import io
import re
import time
from pathlib import Path

import httpx
import pytest

from command import one_line_error, run
from commonweight.access.keyring import CACHE_SECONDS
from conftest import running

SECRET = re.compile(r"sk-cw-[A-Za-z0-9]{40}")
BODY = {"model": "any", "max_tokens": 2, "messages": [{"role": "user", "content": "Hi."}]}
LONGEST = 60.0


def created(data: Path, name: str, *options: str) -> str:
    done = run("keys", "create", name, "--data", data, *options)
    assert done.returncode == 0, done.stderr
    secret = done.stdout.removesuffix("\n")
    assert SECRET.fullmatch(secret)
    assert secret not in done.stderr
    return secret


def test_a_key_is_shown_once(tmp_path: Path) -> None:
    secret = created(tmp_path, "first", "--requests-per-minute", "60", "--concurrency", "4", "--expires", "90d")
    created(tmp_path, "second", "--tenant", "first", "--scope", "files", "--scope", "admin")
    listed = run("keys", "list", "--data", tmp_path, COLUMNS="200").stdout
    assert secret[:10] in listed
    assert secret not in listed
    assert {"first", "second", "60 requests/min", "4 at once", "files admin", "models batches files"} <= {
        cell.strip() for line in listed.splitlines() for cell in line.strip("│").split("│")
    }
    assert re.search(r"valid until \d{4}-\d\d-\d\d", listed)
    assert run("keys", "revoke", "first", "--data", tmp_path).returncode == 0
    assert "revoked" in run("keys", "list", "--data", tmp_path, COLUMNS="200").stdout
    created(tmp_path, "first")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "taken"), "there is a key 'taken' already"),
        (("create", ""), "from 1 to 200 printable characters"),
        (("create", "a\nb"), "from 1 to 200 printable characters"),
        (("create", "a", "--tenant", " "), "a key's tenant"),
        (("create", "a", "--scope", "everything"), "there is no scope 'everything'"),
        (("revoke", "nobody"), "there is no key 'nobody'"),
        (("list", "--database", "mysql://host/name"), "postgresql://"),
        (("list", "--database", "postgresql+asyncpg://u:hidden@127.0.0.1:1/name"), "cannot use the database"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    created(tmp_path, "taken")
    error = one_line_error(run("keys", *arguments, "--data", tmp_path))
    assert words in error
    assert "hidden" not in error


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "create", "a", "--expires", "soon"),
        ("keys", "create", "a", "--expires", "0d"),
        ("keys", "create", "a", "--concurrency", "0"),
        ("usage", "--since", "yesterday"),
        ("usage", "--by", "week"),
    ],
)
def test_options_that_mean_nothing(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = run(*arguments, "--data", tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def status(url: str, header: str, value: str) -> int:
    return httpx.post(f"{url}/v1/messages", json=BODY, headers={header: value}, timeout=LONGEST).status_code


def wait_for(code: int, url: str, secret: str) -> None:
    deadline = time.monotonic() + LONGEST
    while status(url, "x-api-key", secret) != code:
        assert time.monotonic() < deadline
        time.sleep(CACHE_SECONDS / 4)


@pytest.mark.slow
def test_a_running_server_obeys_and_no_key_is_ever_written_down(tmp_path: Path) -> None:
    data, log = tmp_path / "data", tmp_path / "log.txt"
    first = created(data, "first")
    said = []
    # Open to all the world, because there is a key.
    options = ("--host", "0.0.0.0", "--data", str(data), "--log-level", "debug", "--keep-content", "1")
    with running(log, *options) as (server, process):
        second = created(data, "second", "--requests-per-minute", "1")
        wrong = "sk-cw-" + "x" * 40
        assert status(server.url, "x-api-key", server.key) == 200
        assert status(server.url, "authorization", f"Bearer {first}") == 200
        assert status(server.url, "x-api-key", second) == 200
        assert status(server.url, "x-api-key", second) == 429
        assert status(server.url, "authorization", f"Bearer {wrong}") == 401
        said.append(httpx.get(f"{server.url}/v1/models?api_key={first}", headers={"x-api-key": wrong}).text)
        said.append(httpx.get(f"{server.url}/metrics", headers={"x-api-key": server.key}).text)
        said.append(run("keys", "list", "--data", data).stdout)
        assert run("keys", "revoke", "first", "--data", data).returncode == 0
        wait_for(401, server.url, first)
        process.terminate()
        assert process.wait(LONGEST) == 0
    # Also what was answered last is in the books.
    table = run("usage", "--data", data, "--csv", "--by", "key")
    rows = {row["key"]: row for row in csv.DictReader(io.StringIO(table.stdout))}
    assert {name: row["errors"] for name, row in rows.items()} == {"-": "0", "first": "0", "second": "0"}
    assert rows["second"]["requests"] == "1"
    assert int(rows["first"]["output_tokens"]) == 2 * int(rows["first"]["requests"])
    said.append(run("usage", "--data", data).stdout)

    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert log in written
    assert data / "commonweight.db" in written
    for text in (*(text.encode() for text in said), *written.values()):
        for secret in (server.key, first, second, wrong):
            assert secret.encode() not in text
