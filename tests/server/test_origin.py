"""A page in somebody's browser can reach a server on their machine, and must get nothing from it."""

from collections.abc import AsyncIterator

import httpx
import pytest
from observed import KEY, application, body, client, gguf  # noqa: F401 - a fixture

from commonweight.catalog.gguf import Gguf

PAGE = "https://page.example"


@pytest.fixture
async def keyless(gguf: Gguf) -> AsyncIterator[httpx.AsyncClient]:  # noqa: F811
    async with client(application(gguf, key=None)) as asking:
        yield asking


def refused(answer: httpx.Response) -> str:
    """What a page that is turned away is told."""
    assert answer.status_code == 403
    told = answer.json()
    assert told["error"]["type"] == "permission_error"
    assert told["request_id"] == answer.headers["request-id"]
    assert "access-control-allow-origin" not in answer.headers
    message: str = told["error"]["message"]
    return message


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8000",
        "127.8.8.8:1",
        "localhost",
        "LocalHost:8000",
        "app.localhost:8000",
        "[::1]:8000",
    ],
)
async def test_names_of_this_machine(keyless: httpx.AsyncClient, host: str) -> None:
    assert (await keyless.get("/v1/models", headers={"host": host})).status_code == 200
    assert (await keyless.post("/v1/messages", json=body(), headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "evil.example:8000",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evil-localhost",
        ),
        *(
            "192.168.0.7:8000",
            "0.0.0.0:8000",
            "[::]:8000",
            "[fe80::1]",
            "",
            ":8000",
            "[",
            "[::1",
            "127.0.0.1@evil",
        ),
        *("2130706433", "127.1", "0x7f000001"),  # no browser sends these: it writes them as 127.0.0.1
    ],
)
async def test_other_names_may_be_a_page_that_rebinds_its_own(keyless: httpx.AsyncClient, host: str) -> None:
    for path in ("/v1/models", "/health", "/metrics", "/openapi.json", "/nowhere"):
        assert repr(host) in refused(await keyless.get(path, headers={"host": host}))


@pytest.mark.parametrize("origin", [PAGE, "null", "http://localhost:3000", "http://127.0.0.1:1", "file://", "x"])
async def test_pages_of_other_origins(keyless: httpx.AsyncClient, origin: str) -> None:
    # A form, and a script that does without permission, send such types.
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"):
        headers = {"origin": origin, "content-type": kind}
        answer = await keyless.post("/v1/messages", json=body(), headers=headers)
        assert "--cors-origin" in refused(answer)
    asks = {"origin": origin, "access-control-request-method": "POST"}
    refused(await keyless.options("/v1/messages", headers=asks))


async def test_a_page_of_the_servers_own(keyless: httpx.AsyncClient) -> None:
    headers = {"host": "localhost:8000", "origin": "http://localhost:8000"}
    assert (await keyless.post("/v1/messages", json=body(), headers=headers)).status_code == 200


async def test_who_shows_a_key_may_call_the_server_what_they_like(gguf: Gguf) -> None:  # noqa: F811
    async with client(application(gguf)) as asking:
        answer = await asking.get("/v1/models", headers={"host": "models.example", "origin": PAGE})
        assert answer.status_code == 200
        # But the page may not read it, and a key is never sent by itself.
        assert "access-control-allow-origin" not in answer.headers
        asks = {
            "origin": PAGE,
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-api-key",
        }
        preflight = await asking.options("/v1/messages", headers=asks)
        assert preflight.status_code == 405
        assert "access-control-allow-origin" not in preflight.headers


@pytest.mark.parametrize("key", [None, KEY])
async def test_origins_that_are_allowed(gguf: Gguf, key: str | None) -> None:  # noqa: F811
    async with client(application(gguf, key=key, cors_origins=[PAGE])) as asking:
        asks = {
            "origin": PAGE,
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-api-key",
        }
        preflight = await asking.options("/v1/messages", headers=asks)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == PAGE
        assert "x-api-key" in preflight.headers["access-control-allow-headers"]
        good = await asking.post("/v1/messages", json=body(), headers={"origin": PAGE})
        bad = await asking.post("/v1/messages", json=body(max_tokens=-1), headers={"origin": PAGE})
        for answer, status in ((good, 200), (bad, 400)):
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert "request-id" in answer.headers["access-control-expose-headers"]
            assert "access-control-allow-credentials" not in answer.headers
        other = await asking.post("/v1/messages", json=body(), headers={"origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers
        assert other.status_code == (403 if key is None else 200)
        rebound = await asking.post("/v1/messages", json=body(), headers={"origin": PAGE, "host": "page.example"})
        assert rebound.status_code == (403 if key is None else 200)
