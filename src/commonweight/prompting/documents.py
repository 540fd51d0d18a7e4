"""Documents and search results of a request as text, and citations of their quotes."""

import asyncio
import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from commonweight.documents import DocumentError, DocumentReader
from commonweight.messages.citations import (
    CharLocation,
    Citation,
    ContentBlockLocation,
    PageLocation,
    SearchResultLocation,
)
from commonweight.messages.content import (
    Base64Pdf,
    ContentSource,
    DocumentBlock,
    FileSource,
    ImageBlock,
    SearchResultBlock,
    TextBlock,
    TextSource,
    walk,
)
from commonweight.messages.conversation import MessageParam
from commonweight.messages.errors import InvalidRequestError
from commonweight.prompting.citations import QuotableText

MAX_FILE_BYTES = 32 * 2**20
"""Limit of all files that one request refers to, as if their contents were in its body."""


@dataclass(frozen=True)
class UploadedFile:
    """An uploaded file that a document refers to."""

    mime_type: str
    size: int
    """Bytes."""
    read: Callable[[], bytes]
    """Returns all bytes; blocking."""


@dataclass(frozen=True)
class Document:
    """Text of one document or search result, with what a citation of it needs."""

    block: DocumentBlock | SearchResultBlock = field(repr=False, compare=False)
    """Its block in the request."""
    index: int
    """Index among the documents of the request, or among its search results, from 0."""
    kind: Literal["text", "pdf", "blocks", "search_result"]
    parts: list[str]
    """The whole text, or the text of each page or block; empty for a scanned page."""
    title: str | None
    context: str | None = None
    """The client's description of the document, which cannot be cited."""
    source: str = ""
    """Source of a search result."""
    is_citable: bool = False
    """Whether the request enables citations of it."""
    file_id: str | None = None
    """Id of the uploaded file, if it is one."""

    @cached_property
    def quotable(self) -> QuotableText:
        """Its parts as one text, for quotes."""
        return QuotableText(self.parts)


def locate_quote(document: Document, quote: str) -> Citation | None:
    """The citation of a quote's first occurrence in the document; None if there is none, or the quote is blank.

    White space need not match, since models unwrap the lines of a page when they quote it; so quotes are found
    across pages and blocks, too. Linear in the length of the document.
    """
    span = document.quotable.find(quote)
    if span is None:
        return None
    start, end = span
    cited = document.quotable.text[start:end]
    index, title = document.index, document.title
    first, last = document.quotable.find_part(start), document.quotable.find_part(end - 1)
    blocks = "".join(document.parts[first : last + 1])  # blocks are cited whole
    match document.kind:
        case "text":
            return CharLocation(
                cited_text=cited,
                document_index=index,
                document_title=title,
                file_id=document.file_id,
                start_char_index=start,
                end_char_index=end,
            )
        case "pdf":
            return PageLocation(
                cited_text=cited,
                document_index=index,
                document_title=title,
                file_id=document.file_id,
                start_page_number=first + 1,
                end_page_number=last + 2,
            )
        case "blocks":
            return ContentBlockLocation(
                cited_text=blocks,
                document_index=index,
                document_title=title,
                start_block_index=first,
                end_block_index=last + 1,
            )
        case "search_result":
            return SearchResultLocation(
                cited_text=blocks,
                search_result_index=index,
                source=document.source,
                title=title,
                start_block_index=first,
                end_block_index=last + 1,
            )


FileContents = Mapping[str, tuple[Literal["text", "pdf"], list[str]]]
"""Kind and parts of the documents that are files, by their paths in the request."""


async def read_files(
    messages: Sequence[MessageParam], reader: DocumentReader, files: Mapping[str, UploadedFile] | None
) -> FileContents:
    """Read the documents of a request that are files: PDFs that it holds, and uploaded files.

    ``files`` are the uploaded ones that documents refer to, by id; None: uploads are not supported.

    Raises:
        InvalidRequestError: a file cannot be read.
    """
    contents: dict[str, tuple[Literal["text", "pdf"], list[str]]] = {}
    size = 0
    for path, block in _iter_documents(messages):
        match block:
            case DocumentBlock(source=Base64Pdf(data=data)):
                content = await asyncio.to_thread(_decode_base64, data)
                contents[path] = "pdf", await _read_pdf(content, f"{path}.document.source", reader)
            case DocumentBlock(source=FileSource(file_id=file_id)) if files is not None:
                size += files[file_id].size
                if size > MAX_FILE_BYTES:
                    raise InvalidRequestError(
                        f"{path}.document.source: the files of a request may have {MAX_FILE_BYTES} bytes together"
                    )
                contents[path] = await _read_file(files[file_id], f"{path}.document.source", reader)
    return contents


def collect_documents(messages: Sequence[MessageParam], contents: FileContents | None = None) -> list[Document]:
    """All documents and search results in the order of the request, those inside tool results too.

    ``contents`` are what :func:`read_files` returned for the same messages; None: files are not supported.

    Raises:
        InvalidRequestError: a document is not text.
    """
    documents: list[Document] = []
    indices = {"document": 0, "search_result": 0}
    for path, block in _iter_documents(messages):
        documents.append(_make_document(block, path, indices[block.type], contents or {}))
        indices[block.type] += 1
    return documents


def list_file_ids(messages: Sequence[MessageParam]) -> list[str]:
    """Ids of the uploaded files that documents refer to, with repetitions."""
    return [
        block.source.file_id
        for _, block in _iter_documents(messages)
        if isinstance(block, DocumentBlock) and isinstance(block.source, FileSource)
    ]


def refers_to_files(messages: Sequence[MessageParam]) -> bool:
    """Whether documents of a request have contents that must be read from files, sent along or uploaded."""
    return any(
        isinstance(block, DocumentBlock) and isinstance(block.source, Base64Pdf | FileSource)
        for _, block in _iter_documents(messages)
    )


def _iter_documents(messages: Sequence[MessageParam]) -> Iterator[tuple[str, DocumentBlock | SearchResultBlock]]:
    for i, message in enumerate(messages):
        for path, block in walk(message.content, f"messages.{i}.content"):
            if isinstance(block, DocumentBlock | SearchResultBlock):
                yield path, block


def _make_document(
    block: DocumentBlock | SearchResultBlock, path: str, index: int, contents: FileContents
) -> Document:
    is_citable = block.citations is not None and block.citations.enabled
    match block:
        case SearchResultBlock():
            texts = [part.text for part in block.content]
            return Document(
                block, index, "search_result", texts, block.title, source=block.source, is_citable=is_citable
            )
        case DocumentBlock():
            kind, parts = _get_parts(block, path, contents)
            file_id = block.source.file_id if isinstance(block.source, FileSource) else None
            return Document(
                block,
                index,
                kind,
                parts,
                block.title,
                context=block.context,
                is_citable=is_citable,
                file_id=file_id,
            )


def _get_parts(
    block: DocumentBlock, path: str, contents: FileContents
) -> tuple[Literal["text", "pdf", "blocks"], list[str]]:
    match block.source:
        case TextSource(data=text):
            return "text", [text]
        case ContentSource(content=blocks):
            return "blocks", [
                _check_text(part, f"{path}.document.source.content.{i}") for i, part in enumerate(blocks)
            ]
        case _ if path in contents:
            return contents[path]
        case source:
            kind = "pdf" if isinstance(source, Base64Pdf) else source.type
            raise InvalidRequestError(f"{path}.document: this model does not support {kind} input")


async def _read_file(
    file: UploadedFile, path: str, reader: DocumentReader
) -> tuple[Literal["text", "pdf"], list[str]]:
    """Pages of a PDF, or the text of any other file, which must be UTF-8 whatever its type."""
    content = await asyncio.to_thread(file.read)
    if file.mime_type == "application/pdf":
        return "pdf", await _read_pdf(content, path, reader)
    try:
        return "text", [await asyncio.to_thread(content.decode)]
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"{path}: a document can be a PDF or UTF-8 text, and this file is {file.mime_type}"
        ) from error


async def _read_pdf(content: bytes, path: str, reader: DocumentReader) -> list[str]:
    try:
        return await reader.read_pdf(content)
    except DocumentError as error:
        raise InvalidRequestError(f"{path}: {error}") from error


def _check_text(part: TextBlock | ImageBlock, path: str) -> str:
    if isinstance(part, ImageBlock):
        raise InvalidRequestError(f"{path}.image: this model does not support image input")
    return part.text


def _decode_base64(data: str) -> bytes:
    try:
        return base64.b64decode(data)
    except ValueError:
        return b""  # which is no PDF
