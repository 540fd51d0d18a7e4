"""Documents and search results of a request as text, and citations of their quotes."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

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
    UrlSource,
    walk,
)
from commonweight.messages.conversation import MessageParam
from commonweight.messages.errors import InvalidRequestError
from commonweight.prompting.citations import QuotableText
from commonweight.prompting.pdf import extract_pages

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


def collect_documents(
    messages: Sequence[MessageParam], files: Mapping[str, UploadedFile] | None = None
) -> list[Document]:
    """All documents and search results in the order of the request, those inside tool results too.

    ``files`` are the uploaded ones that documents refer to, by id; None: uploads are not supported. They are read
    in the caller's thread, one after the other.

    Raises:
        InvalidRequestError: a document is not text, or cannot be read.
    """
    documents: list[Document] = []
    indices = {"document": 0, "search_result": 0}
    pages = size = 0
    for path, block in _iter_documents(messages):
        if isinstance(block, DocumentBlock) and isinstance(block.source, FileSource) and files is not None:
            size += files[block.source.file_id].size
            if size > MAX_FILE_BYTES:
                raise InvalidRequestError(
                    f"{path}.document.source: the files of a request may have {MAX_FILE_BYTES} bytes together"
                )
        document = _read_document(block, path, indices[block.type], pages, files)
        documents.append(document)
        indices[block.type] += 1
        pages += len(document.parts) if document.kind == "pdf" else 0
    return documents


def list_file_ids(messages: Sequence[MessageParam]) -> list[str]:
    """Ids of the uploaded files that documents refer to, with repetitions."""
    return [
        block.source.file_id
        for _, block in _iter_documents(messages)
        if isinstance(block, DocumentBlock) and isinstance(block.source, FileSource)
    ]


def _iter_documents(messages: Sequence[MessageParam]) -> Iterator[tuple[str, DocumentBlock | SearchResultBlock]]:
    for i, message in enumerate(messages):
        for path, block in walk(message.content, f"messages.{i}.content"):
            if isinstance(block, DocumentBlock | SearchResultBlock):
                yield path, block


def _read_document(
    block: DocumentBlock | SearchResultBlock,
    path: str,
    index: int,
    pages_before: int,
    files: Mapping[str, UploadedFile] | None,
) -> Document:
    is_citable = block.citations is not None and block.citations.enabled
    match block:
        case SearchResultBlock():
            texts = [part.text for part in block.content]
            return Document(
                block, index, "search_result", texts, block.title, source=block.source, is_citable=is_citable
            )
        case DocumentBlock():
            kind, parts = _read_parts(block, path, pages_before, files)
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


def _read_parts(
    block: DocumentBlock, path: str, pages_before: int, files: Mapping[str, UploadedFile] | None
) -> tuple[Literal["text", "pdf", "blocks"], list[str]]:
    match block.source:
        case TextSource(data=text):
            return "text", [text]
        case ContentSource(content=blocks):
            return "blocks", [
                _check_text(part, f"{path}.document.source.content.{i}") for i, part in enumerate(blocks)
            ]
        case Base64Pdf(data=data):
            return "pdf", extract_pages(_decode_base64(data), f"{path}.document.source", pages_before)
        case FileSource(file_id=file_id) if files is not None:
            return _read_file(files[file_id], f"{path}.document.source", pages_before)
        case UrlSource(type=kind) | FileSource(type=kind):
            raise InvalidRequestError(f"{path}.document: this model does not support {kind} input")


def _read_file(file: UploadedFile, path: str, pages_before: int) -> tuple[Literal["text", "pdf"], list[str]]:
    """Pages of a PDF, or the text of any other file, which must be UTF-8 whatever its type."""
    if file.mime_type == "application/pdf":
        return "pdf", extract_pages(file.read(), path, pages_before)
    try:
        return "text", [file.read().decode()]
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"{path}: a document can be a PDF or UTF-8 text, and this file is {file.mime_type}"
        ) from error


def _check_text(part: TextBlock | ImageBlock, path: str) -> str:
    if isinstance(part, ImageBlock):
        raise InvalidRequestError(f"{path}.image: this model does not support image input")
    return part.text


def _decode_base64(data: str) -> bytes:
    try:
        return base64.b64decode(data)
    except ValueError:
        return b""  # extract_pages refuses it as no PDF
