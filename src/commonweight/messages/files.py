"""Wire models of ``/v1/files``.

The beta that came before (header ``anthropic-beta: files-api-2025-04-14``) has shapes of its own.
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

FILES_BETA = "files-api-2025-04-14"


class FileMetadata(BaseModel):
    """Metadata of a file. After ``expires_at`` its content is gone."""

    id: str
    type: Literal["file"] = "file"
    filename: str
    mime_type: str
    size_bytes: int
    created_at: datetime
    expires_at: datetime | None
    downloadable: bool = True
    """Always true: every upload can be downloaded from this server."""


class FilePage(BaseModel):
    """A page of ``GET /v1/files``, newest first."""

    data: list[FileMetadata]
    next_page: str | None
    """Cursor of the next page; None on the last."""


class BetaFileMetadata(FileMetadata):
    """Metadata of a file in the shape of the beta."""

    scope: None = None
    """Here no file belongs to a session."""


class BetaFilePage(BaseModel):
    """Page of files in the shape of the beta."""

    data: list[BetaFileMetadata]
    has_more: bool
    first_id: str | None
    last_id: str | None


class DeletedFile(BaseModel):
    """Response to the deletion of a file."""

    id: str
    type: Literal["file_deleted"] = "file_deleted"
