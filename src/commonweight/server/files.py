"""Routes ``/v1/files``: upload, list, describe, download and delete files."""

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from commonweight.access.principal import Principal
from commonweight.files import Library
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.files import (
    FILES_BETA,
    BetaFileMetadata,
    BetaFilePage,
    DeletedFile,
    FileMetadata,
    FilePage,
)
from commonweight.server.openapi import BODY_ERRORS, NOT_FOUND, Responses
from commonweight.server.upload import LIFETIME_FIELD, read_form
from commonweight.store.files import Position, StoredFile

MAX_IDS = 100
DEFAULT_PAGE_SIZE = 20
_CHUNK_BYTES = 256 * 1024
_CURSOR = re.compile(r"(\d{1,12}(?:\.\d{1,12})?):(file_[0-9A-Za-z]{1,50})")

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        LIFETIME_FIELD: {"type": "integer", "minimum": 3600, "maximum": 7_776_000},
                    },
                    "required": ["file"],
                }
            }
        },
    }
}
_BYTES: Responses = {200: {"description": "The file, of its own type.", "content": {"*/*": {}}}}


def make_files_router(library: Library) -> APIRouter:
    """Create the routes."""
    router = APIRouter(prefix="/v1/files")

    @router.post("", openapi_extra=_FORM, responses=BODY_ERRORS)
    async def upload_file(request: Request) -> FileMetadata | BetaFileMetadata:
        principal = _get_principal(request)
        async with library.receive(principal.tenant) as upload:
            lifetime = await read_form(request, upload)
            file = await library.keep(upload, principal.tenant, principal.key_id, lifetime)
        return _make_metadata(file, is_beta=_is_beta(request))

    @router.get("")
    async def list_files(
        request: Request,
        ids: Annotated[list[str] | None, Query(alias="ids[]")] = None,
        limit: Annotated[int | None, Query(ge=1, le=1000)] = None,
        page: str | None = None,
        after_id: str | None = None,
        before_id: str | None = None,
        scope_id: str | None = None,
    ) -> FilePage | BetaFilePage:
        tenant = _get_principal(request).tenant
        if _is_beta(request):
            after = await _find_position(library, tenant, "after_id", after_id)
            before = await _find_position(library, tenant, "before_id", before_id)
        else:
            after, before = _parse_cursor(page), None
        if scope_id is not None:  # no file here belongs to any
            files, has_more = [], False
        elif ids is not None and not _is_beta(request):
            if page is not None or limit is not None:
                raise InvalidRequestError("ids: cannot be combined with page or limit")
            if len(set(ids)) > MAX_IDS:
                raise InvalidRequestError(f"ids: at most {MAX_IDS} may be given")
            files, has_more = await library.find(tenant, ids), False
        else:
            files, has_more = await library.list_page(tenant, limit or DEFAULT_PAGE_SIZE, after, before)
        if _is_beta(request):
            return BetaFilePage(
                data=[_make_beta_metadata(file) for file in files],
                has_more=has_more,
                first_id=files[0].id if files else None,
                last_id=files[-1].id if files else None,
            )
        return FilePage(
            data=[_make_current_metadata(file) for file in files],
            next_page=_make_cursor(files[-1]) if has_more else None,
        )

    @router.get("/{file_id}", responses=NOT_FOUND)
    async def get_file(request: Request, file_id: str) -> FileMetadata | BetaFileMetadata:
        file = await library.get(_get_principal(request).tenant, file_id)
        return _make_metadata(file, is_beta=_is_beta(request))

    @router.delete("/{file_id}", responses=NOT_FOUND)
    async def delete_file(request: Request, file_id: str) -> DeletedFile:
        await library.delete(_get_principal(request).tenant, file_id)
        return DeletedFile(id=file_id)

    @router.get("/{file_id}/content", response_class=Response, responses=_BYTES | NOT_FOUND)
    async def get_content(request: Request, file_id: str) -> Response:
        file, content = await library.open_content(_get_principal(request).tenant, file_id)
        return ContentResponse(file, content)

    return router


class ContentResponse(StreamingResponse):
    """A file's content; closed in any case. Its headers keep browsers from running it."""

    def __init__(self, file: StoredFile, content: BinaryIO) -> None:
        self._content = content
        headers = {
            "content-length": str(file.size_bytes),
            "content-disposition": f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}",
            "content-security-policy": "default-src 'none'; sandbox",
            "x-content-type-options": "nosniff",
        }
        super().__init__(self._read_chunks(), headers=headers, media_type=file.mime_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._content:
            await super().__call__(scope, receive, send)

    async def _read_chunks(self) -> AsyncIterator[bytes]:
        while chunk := await asyncio.to_thread(self._content.read, _CHUNK_BYTES):
            yield chunk


def _get_principal(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


def _is_beta(request: Request) -> bool:
    """Whether the client asks for the schemas of the beta."""
    betas = ",".join(request.headers.getlist("anthropic-beta")).split(",")
    return FILES_BETA in (beta.strip() for beta in betas)


def _make_metadata(file: StoredFile, *, is_beta: bool) -> FileMetadata | BetaFileMetadata:
    return _make_beta_metadata(file) if is_beta else _make_current_metadata(file)


def _make_current_metadata(file: StoredFile) -> FileMetadata:
    return FileMetadata(
        id=file.id,
        filename=file.filename,
        mime_type=file.mime_type,
        size_bytes=file.size_bytes,
        created_at=datetime.fromtimestamp(file.created_at, UTC),
        expires_at=None if file.expires_at is None else datetime.fromtimestamp(file.expires_at, UTC),
    )


def _make_beta_metadata(file: StoredFile) -> BetaFileMetadata:
    return BetaFileMetadata.model_validate(dict(_make_current_metadata(file)))


def _make_cursor(file: StoredFile) -> str:
    """Make the cursor of the next page; it stays valid if the file is deleted."""
    return "page_" + base64.urlsafe_b64encode(f"{file.created_at!r}:{file.id}".encode()).decode()


def _parse_cursor(page: str | None) -> Position | None:
    if page is None:
        return None
    try:
        match = _CURSOR.fullmatch(base64.urlsafe_b64decode(page.removeprefix("page_")).decode())
    except ValueError:
        match = None
    if match is None:
        raise InvalidRequestError("page: it is not the next_page of an answer")
    return float(match[1]), match[2]


async def _find_position(library: Library, tenant: str, parameter: str, file_id: str | None) -> Position | None:
    if file_id is None:
        return None
    for file in await library.find(tenant, [file_id]):
        return file.created_at, file.id
    raise InvalidRequestError(f"{parameter}: no file has the id {file_id!r}")
