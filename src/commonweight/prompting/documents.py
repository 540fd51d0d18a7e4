"""The documents and search results of a conversation as numbered texts, and where in them a quote stands."""

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
"""Of all files that one request refers to, as if their contents were in its body."""


@dataclass(frozen=True)
class UploadedFile:
    """A file that was uploaded before, as a document refers to it."""

    mime_type: str
    size: int
    """Bytes."""
    read: Callable[[], bytes]
    """All of it; blocks."""


@dataclass(frozen=True)
class Document:
    """One document or search result, as text."""

    block: DocumentBlock | SearchResultBlock = field(repr=False, compare=False)
    """What it is in the request."""
    index: int
    """Documents count from 0 in the order of the request, and so do search results on their own."""
    kind: Literal["text", "pdf", "blocks", "search_result"]
    parts: list[str]
    """The whole text, or the text of each page or block. A page that is a picture has none."""
    title: str | None
    context: str | None = None
    """What the client says about a document. It is no part of it."""
    source: str = ""
    """Where a search result comes from."""
    is_citable: bool = False
    """Whether the client asks for citations of it."""
    file_id: str | None = None
    """The uploaded file that it is."""

    @cached_property
    def quotable(self) -> QuotableText:
        """Its parts as one text, as an answer may quote it."""
        return QuotableText(self.parts)


def locate_quote(document: Document, quote: str) -> Citation | None:
    """The first place that says this word for word; None if there is none, or the quote is blank.

    White space need not be the same, since models unwrap the lines of a page when they quote it; so quotes are
    found across pages and blocks, too. Linear in the length of the document.
    """
    span = document.quotable.find(quote)
    if span is None:
        return None
    start, end = span
    cited = document.quotable.text[start:end]
    index, title = document.index, document.title
    first, last = document.quotable.part_at(start), document.quotable.part_at(end - 1)
    blocks = "".join(document.parts[first : last + 1])  # which are cited whole
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

    ``files`` are the uploaded ones that documents refer to, by their ids; None: there are no uploads here. They
    are read in the caller's thread, one after the other.

    Raises:
        InvalidRequestError: one of them is no text, or cannot be read.
    """
    documents: list[Document] = []
    indices = {"document": 0, "search_result": 0}
    pages = size = 0
    for where, block in _documents(messages):
        if isinstance(block, DocumentBlock) and isinstance(block.source, FileSource) and files is not None:
            size += files[block.source.file_id].size
            if size > MAX_FILE_BYTES:
                raise InvalidRequestError(
                    f"{where}.document.source: the files of a request may have {MAX_FILE_BYTES} bytes together"
                )
        document = _read_document(block, where, indices[block.type], pages, files)
        documents.append(document)
        indices[block.type] += 1
        pages += len(document.parts) if document.kind == "pdf" else 0
    return documents


def list_file_ids(messages: Sequence[MessageParam]) -> list[str]:
    """The uploaded files that documents refer to, each as often as they do."""
    return [
        block.source.file_id
        for _, block in _documents(messages)
        if isinstance(block, DocumentBlock) and isinstance(block.source, FileSource)
    ]


def _documents(messages: Sequence[MessageParam]) -> Iterator[tuple[str, DocumentBlock | SearchResultBlock]]:
    for i, message in enumerate(messages):
        for where, block in walk(message.content, f"messages.{i}.content"):
            if isinstance(block, DocumentBlock | SearchResultBlock):
                yield where, block


def _read_document(
    block: DocumentBlock | SearchResultBlock,
    where: str,
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
            kind, parts = _parts(block, where, pages_before, files)
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


def _parts(
    block: DocumentBlock, where: str, pages_before: int, files: Mapping[str, UploadedFile] | None
) -> tuple[Literal["text", "pdf", "blocks"], list[str]]:
    match block.source:
        case TextSource(data=text):
            return "text", [text]
        case ContentSource(content=blocks):
            return "blocks", [_text(part, f"{where}.document.source.content.{i}") for i, part in enumerate(blocks)]
        case Base64Pdf(data=data):
            return "pdf", extract_pages(_decode_base64(data), f"{where}.document.source", pages_before)
        case FileSource(file_id=file_id) if files is not None:
            return _file_parts(files[file_id], f"{where}.document.source", pages_before)
        case UrlSource(type=kind) | FileSource(type=kind):
            raise InvalidRequestError(f"{where}.document: this model does not support {kind} input")


def _file_parts(file: UploadedFile, where: str, pages_before: int) -> tuple[Literal["text", "pdf"], list[str]]:
    """A PDF's pages. Any other file must be text, whatever kind of text it is."""
    if file.mime_type == "application/pdf":
        return "pdf", extract_pages(file.read(), where, pages_before)
    try:
        return "text", [file.read().decode()]
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"{where}: a document can be a PDF or UTF-8 text, and this file is {file.mime_type}"
        ) from error


def _text(part: TextBlock | ImageBlock, where: str) -> str:
    if isinstance(part, ImageBlock):
        raise InvalidRequestError(f"{where}.image: this model does not support image input")
    return part.text


def _decode_base64(data: str) -> bytes:
    try:
        return base64.b64decode(data)
    except ValueError:
        return b""  # no PDF, as what reads it will say
