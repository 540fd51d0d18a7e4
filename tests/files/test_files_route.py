"""``/v1/files`` over HTTP: shapes, forms that are wrong, and what is told to whom."""

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from file_server import FileServer, serving

from commonweight.files import library
from commonweight.server import upload
from commonweight.store import Database

BETA = {"anthropic-beta": "claude-code-20250219, files-api-2025-04-14"}
BOUNDARY = "--=_boundary"
KINDS = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


@pytest.fixture
async def served(database: Database, tmp_path: Path) -> AsyncIterator[FileServer]:
    async with serving(database, tmp_path / "files") as served:
        yield served


@pytest.fixture
async def client(served: FileServer) -> AsyncIterator[httpx.AsyncClient]:
    """One tenant's client."""
    async with httpx.AsyncClient(base_url=served.url, headers={"x-api-key": served.alice}, timeout=60) as client:
        yield client


def error(response: httpx.Response) -> tuple[int, str, str]:
    """Status, type and message, of an answer that is surely the API's."""
    body = response.json()
    assert body.keys() == {"type", "error", "request_id"}
    assert (body["type"], body["request_id"]) == ("error", response.headers["request-id"])
    return response.status_code, body["error"]["type"], body["error"]["message"]


async def put(
    client: httpx.AsyncClient, data: bytes = b"x", name: str = "a.txt", headers: dict[str, str] | None = None
) -> dict[str, Any]:
    response = await client.post("/v1/files", files={"file": (name, data)}, headers=headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def test_a_file_in_both_shapes(client: httpx.AsyncClient) -> None:
    made = await put(client, b"hello", "greeting.txt")
    assert made["id"].startswith("file_")
    assert made | {"id": "", "created_at": ""} == {
        "id": "",
        "type": "file",
        "filename": "greeting.txt",
        "mime_type": "text/plain",
        "size_bytes": 5,
        "created_at": "",
        "expires_at": None,
        "downloadable": True,
    }
    assert made["created_at"].endswith("Z")
    path = f"/v1/files/{made['id']}"
    assert (await client.get(path)).json() == made
    assert (await client.get(path, headers=BETA)).json() == made | {"scope": None}
    assert (await put(client, headers=BETA)).keys() == made.keys() | {"scope"}
    deleted = await client.delete(path)
    assert deleted.json() == {"id": made["id"], "type": "file_deleted"}
    for call in (client.get(path), client.delete(path), client.get(f"{path}/content")):
        assert error(await call) == (404, "not_found_error", f"File not found: {made['id']}")


async def test_pages_in_both_shapes(client: httpx.AsyncClient) -> None:
    made = [await put(client, b"%d" % i) for i in range(5)][::-1]
    ids = [file["id"] for file in made]

    async def page(beta: Any = False, **parameters: Any) -> dict[str, Any]:
        response = await client.get("/v1/files", params=parameters, headers=BETA if beta else {})
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    assert await page() == {"data": made, "next_page": None}
    first = await page(limit=2)
    assert first["data"] == made[:2]
    assert first["next_page"].startswith("page_")
    await client.delete(f"/v1/files/{ids[1]}")  # a page goes on where it ended, whatever was deleted
    second = await page(limit=2, page=first["next_page"])
    assert second["data"] == made[2:4]
    assert await page(limit=2, page=second["next_page"]) == {"data": made[4:], "next_page": None}
    some = await page(**{"ids[]": [ids[4], ids[0], ids[4], ids[1], "file_unknown", "\0"]})
    assert some == {"data": [made[0], made[4]], "next_page": None}
    assert await page(scope_id="session_1") == {"data": [], "next_page": None}

    left = [file | {"scope": None} for file in (made[0], *made[2:])]
    assert await page(beta=True) == {"data": left, "has_more": False, "first_id": ids[0], "last_id": ids[4]}
    after = await page(beta=True, limit=2, after_id=ids[0])
    assert after == {"data": left[1:3], "has_more": True, "first_id": ids[2], "last_id": ids[3]}
    before = await page(beta=True, limit=2, before_id=ids[4])
    assert before == {"data": left[1:3], "has_more": True, "first_id": ids[2], "last_id": ids[3]}
    nothing = {"data": [], "has_more": False, "first_id": None, "last_id": None}
    assert await page(beta=True, after_id=ids[4]) == nothing
    assert await page(beta=True, scope_id="session_1") == nothing


@pytest.mark.parametrize(
    ("query", "beta", "message"),
    [
        ("limit=0", False, "limit: Input should be greater than or equal to 1"),
        ("limit=1001", True, "limit: Input should be less than or equal to 1000"),
        ("limit=x", False, "limit: Input should be a valid integer, unable to parse string as an integer"),
        ("page=page_nonsense", False, "page: it is not the next_page of an answer"),
        ("page=%00%ff", False, "page: it is not the next_page of an answer"),
        ("page=page_bmFuOmZpbGVfYQ==", False, "page: it is not the next_page of an answer"),
        ("ids[]=file_a&limit=3", False, "ids: cannot be combined with page or limit"),
        ("&".join(f"ids[]=file_{i}" for i in range(101)), False, "ids: at most 100 may be given"),
        ("after_id=file_unknown", True, "after_id: no file has the id 'file_unknown'"),
        ("before_id=%00", True, r"before_id: no file has the id '\x00'"),
    ],
)
async def test_pages_that_there_are_not(client: httpx.AsyncClient, query: str, beta: bool, message: str) -> None:
    response = await client.get(f"/v1/files?{query}", headers=BETA if beta else {})
    assert error(response) == (400, "invalid_request_error", message)


async def test_contents_come_back_and_run_nowhere(client: httpx.AsyncClient) -> None:
    made = await put(client, b"<script>alert(1)</script>", "\u2713 100% a'b.html")
    response = await client.get(f"/v1/files/{made['id']}/content")
    assert response.content == b"<script>alert(1)</script>"
    headers = response.headers
    assert headers["content-length"] == "25"
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["content-disposition"] == "attachment; filename*=UTF-8''%E2%9C%93%20100%25%20a%27b.html"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"


async def test_who_may_see_what(served: FileServer, client: httpx.AsyncClient) -> None:
    made = await put(client)
    path = f"/v1/files/{made['id']}"
    async with httpx.AsyncClient(base_url=served.url, headers={"x-api-key": served.bob}) as other:
        assert (await other.get("/v1/files")).json() == {"data": [], "next_page": None}
        assert (await other.get("/v1/files", params={"ids[]": made["id"]})).json()["data"] == []
        for call in (other.get(path), other.delete(path), other.get(f"{path}/content")):
            assert error(await call) == (404, "not_found_error", f"File not found: {made['id']}")
        assert error(await other.get("/v1/files", params={"after_id": made["id"]}, headers=BETA))[0] == 400
    for key, status in ((served.models_only, 403), ("wrong", 401)):
        async with httpx.AsyncClient(base_url=served.url, headers={"x-api-key": key}) as stranger:
            for call in (
                stranger.get("/v1/files"),
                stranger.get(path),
                stranger.delete(path),
                stranger.get(f"{path}/content"),
                stranger.post("/v1/files", files={"file": b"x"}),
            ):
                assert error(await call)[0] == status
    assert (await client.get(path)).json() == made


# Forms


def part(name: str, value: str | bytes, *, filename: str | None = None, kind: str | None = None) -> bytes:
    called = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{called}\r\n'
    if kind is not None:
        head += f"Content-Type: {kind}\r\n"
    return head.encode() + b"\r\n" + (value.encode() if isinstance(value, str) else value) + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
FILE = part("file", "x", filename="a.txt")


async def test_forms_may_come_in_any_way(client: httpx.AsyncClient) -> None:
    body = (
        part("expires_in_seconds", "3600") + part("file", "a\r\n--b\r\n", filename="a.txt", kind="text/css") + END
    )

    async def slowly() -> AsyncIterator[bytes]:
        for byte in body:
            yield bytes([byte])

    made = []
    for content in (body, slowly(), FILE + part("expires_in_seconds", "3600") + END + b"epilogue"):
        response = await client.post("/v1/files", content=content, headers=KINDS)
        assert response.status_code == 200, response.text
        made.append(response.json())
    assert [(file["size_bytes"], file["mime_type"]) for file in made] == [
        (8, "text/css"),
        (8, "text/css"),
        (1, "text/plain"),
    ]
    assert all(file["expires_at"] is not None for file in made)


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (part("file", "%PDF-1.4 x"), "unnamed.pdf"),
        (part("file", "x", filename="", kind="text/plain"), "unnamed.txt"),
        (part("file", "x", filename="../../../../tmp/passwd"), "passwd"),
        (part("file", "x", filename="..\\\\..\\\\windows\\\\a.ini"), "a.ini"),
        (part("file", "x", filename="übung.txt"), "übung.txt"),
    ],
)
async def test_names(client: httpx.AsyncClient, form: bytes, name: str, tmp_path: Path) -> None:
    response = await client.post("/v1/files", content=form + END, headers=KINDS)
    assert response.status_code == 200, response.text
    assert response.json()["filename"] == name
    assert all(path.name != name for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The request body is not valid multipart/form-data: it ends too early"),
        (FILE, "The request body is not valid multipart/form-data: it ends too early"),
        (FILE + END[:-5], "The request body is not valid multipart/form-data: it ends too early"),
        (b"nonsense", "The request body is not valid multipart/form-data: Expected boundary character"),
        (b'{"file": 1}', "The request body is not valid multipart/form-data: Expected boundary character"),
        (END, "file: Field required"),
        (part("expires_in_seconds", "3600") + END, "file: Field required"),
        (FILE + FILE + END, "file: it is there more than once"),
        (FILE + part("purpose", "user_data") + END, "purpose: Extra inputs are not permitted"),
        (part("x" * 999, "") + END, f"{'x' * 80}: Extra inputs are not permitted"),
        (FILE.replace(b' name="file";', b"") + END, ": Extra inputs are not permitted"),
        (FILE + part("expires_in_seconds", "3599") + END, "expires_in_seconds: Input should be greater than or"),
        (FILE + part("expires_in_seconds", "7776001") + END, "expires_in_seconds: Input should be less than or"),
        (FILE + part("expires_in_seconds", "soon") + END, "expires_in_seconds: Input should be a valid integer"),
        (FILE + part("expires_in_seconds", "") + END, "expires_in_seconds: Input should be a valid integer"),
        (FILE + part("expires_in_seconds", b"\xff") + END, "expires_in_seconds: Input should be a valid integer"),
        (FILE + part("expires_in_seconds", "1" * 9999) + END, "expires_in_seconds: it is too long"),
        (part("file", "x", filename="a?b") + END, "file: the filename has characters that it may not have"),
        (part("file", "x", filename="a" * 256) + END, "file: the filename is longer than 255 characters"),
        (part("file", "x", filename="..") + END, "file: the filename is .., which means a folder"),
        (FILE.replace(b"a.txt", b"\xff\xfe") + END, "file: names of fields and files must be UTF-8"),
        (part("file", "x", kind="image/png") + END, "file: it is declared as image/png, but its content is not"),
        (
            part("file", "%PDF-1.4", kind="text/plain") + END,
            "file: it is declared as text/plain, but its content is application/pdf",
        ),
        (
            f"--{BOUNDARY}\r\nX: {'y' * 99_999}\r\n\r\n".encode() + END,
            "The request body is not valid multipart/form-data: Maximum header size exceeded",
        ),
    ],
)
async def test_forms_that_are_wrong(client: httpx.AsyncClient, body: bytes, message: str, tmp_path: Path) -> None:
    response = await client.post("/v1/files", content=body, headers=KINDS)
    status, kind, said = error(response)
    assert (status, kind) == (400, "invalid_request_error")
    assert said.startswith(message)
    assert not [path for path in (tmp_path / "files").rglob("*") if path.is_file()]
    assert (await client.get("/v1/files")).json()["data"] == []


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/x; boundary=x",
    ],
)
async def test_bodies_that_are_no_forms(client: httpx.AsyncClient, kind: str) -> None:
    response = await client.post("/v1/files", content=b"x", headers={"content-type": kind})
    assert error(response) == (
        400,
        "invalid_request_error",
        "content-type: a file is uploaded as multipart/form-data with a boundary",
    )
    long = {"content-type": f"multipart/form-data; boundary={'b' * 999}"}
    assert error(await client.post("/v1/files", content=b"x", headers=long))[0] == 400
    packed = await client.post("/v1/files", content=b"x", headers=KINDS | {"content-encoding": "gzip"})
    assert error(packed)[0] == 400


async def test_a_compressed_form_is_a_form(client: httpx.AsyncClient) -> None:
    form = FILE + END
    plain = await client.post("/v1/files", content=form, headers=KINDS)
    packed = await client.post(
        "/v1/files", content=gzip.compress(form), headers=KINDS | {"content-encoding": "gzip"}
    )
    assert packed.json()["size_bytes"] == plain.json()["size_bytes"] > 0


# Limits


async def test_what_is_too_large_is_refused_while_it_comes(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    most = 3_000_000
    for module in (library, upload):
        monkeypatch.setattr(module, "MAX_FILE_BYTES", most)
    assert (await put(client, b"x" * most))["size_bytes"] == most
    too_large = (413, "request_too_large", f"file: the file exceeds the maximum size of {most} bytes")
    announced = await client.post("/v1/files", files={"file": b"x" * (most + 1)})
    assert error(announced) == too_large

    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield part("file", "", filename="a.txt").removesuffix(b"\r\n")
        while True:
            sent += 100_000
            yield b"x" * 100_000

    # The answer comes although the body never ends.
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    head = f"POST /v1/files HTTP/1.1\r\nhost: x\r\nx-api-key: {client.headers['x-api-key']}\r\n"
    writer.write(f"{head}content-type: {KINDS['content-type']}\r\ntransfer-encoding: chunked\r\n\r\n".encode())

    async def send() -> None:
        async for chunk in endless():
            writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await writer.drain()

    sending = asyncio.create_task(send())
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    writer.close()
    # An epilogue is no way around the limit either.
    padded = FILE + END + b"x" * (most + upload.MAX_FORM_OVERHEAD_BYTES)

    async def unannounced() -> AsyncIterator[bytes]:
        yield padded

    assert error(await client.post("/v1/files", content=unannounced(), headers=KINDS)) == too_large
    packed = KINDS | {"content-encoding": "gzip"}
    assert error(await client.post("/v1/files", content=gzip.compress(padded), headers=packed)) == too_large
    assert len([path for path in (tmp_path / "files").rglob("*") if path.is_file()]) == 1


async def test_the_quota_has_its_own_code(database: Database, tmp_path: Path) -> None:
    async with (
        serving(database, tmp_path / "files", quota=1000) as served,
        httpx.AsyncClient(base_url=served.url, headers={"x-api-key": served.alice}) as client,
    ):
        await put(client, b"x" * 900)
        response = await client.post("/v1/files", files={"file": b"x" * 101})
        assert error(response)[:2] == (400, "invalid_request_error")
        assert response.json()["error"]["details"] == {"error_code": "storage_quota_exceeded"}
        await put(client, b"x" * 100)


async def test_a_client_that_leaves_leaves_nothing(
    served: FileServer, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    def on_disk() -> list[Path]:
        return [path for path in (tmp_path / "files").rglob("*") if path.is_file()]

    arrived = asyncio.Event()

    async def half() -> AsyncIterator[bytes]:
        yield part("file", "", filename="a.txt").removesuffix(b"\r\n")
        yield b"x" * 5_000_000
        arrived.set()
        await asyncio.sleep(60)

    sending = asyncio.create_task(client.post("/v1/files", content=half(), headers=KINDS))
    await arrived.wait()
    while not on_disk():
        await asyncio.sleep(0.01)
    assert (await client.get("/v1/files")).json()["data"] == []
    sending.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sending
    while on_disk():
        await asyncio.sleep(0.01)
    assert (await client.get("/v1/files")).json()["data"] == []


async def test_the_description_tells_of_files(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    paths = {path: set(methods) for path, methods in document["paths"].items() if path.startswith("/v1/files")}
    assert paths == {
        "/v1/files": {"get", "post"},
        "/v1/files/{file_id}": {"get", "delete"},
        "/v1/files/{file_id}/content": {"get"},
    }
    form = document["paths"]["/v1/files"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {"file", "expires_in_seconds"}
    assert json.dumps(document).count('"BetaFileMetadata"') >= 1
