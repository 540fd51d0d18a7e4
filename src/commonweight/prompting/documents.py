"""The documents and search results of a conversation as numbered texts, and where in them a quote stands."""

import base64
from collections.abc import Sequence
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
from commonweight.prompting.pdf import pages_of
from commonweight.prompting.quotes import QuotableText


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

    @cached_property
    def quotable(self) -> QuotableText:
        """Its parts as one text, as an answer may quote it."""
        return QuotableText(self.parts)


def locate(document: Document, quote: str) -> Citation | None:
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
                start_char_index=start,
                end_char_index=end,
            )
        case "pdf":
            return PageLocation(
                cited_text=cited,
                document_index=index,
                document_title=title,
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


def collect(messages: Sequence[MessageParam]) -> list[Document]:
    """All documents and search results in the order of the request, those inside tool results too.

    Raises:
        InvalidRequestError: one of them is no text, or cannot be read.
    """
    documents: list[Document] = []
    indices = {"document": 0, "search_result": 0}
    pages = 0
    for i, message in enumerate(messages):
        for where, block in walk(message.content, f"messages.{i}.content"):
            if isinstance(block, DocumentBlock | SearchResultBlock):
                document = _read(block, where, indices[block.type], pages)
                documents.append(document)
                indices[block.type] += 1
                pages += len(document.parts) if document.kind == "pdf" else 0
    return documents


def _read(block: DocumentBlock | SearchResultBlock, where: str, index: int, pages_before: int) -> Document:
    is_citable = block.citations is not None and block.citations.enabled
    match block:
        case SearchResultBlock():
            texts = [part.text for part in block.content]
            return Document(
                block, index, "search_result", texts, block.title, source=block.source, is_citable=is_citable
            )
        case DocumentBlock():
            kind, parts = _parts(block, where, pages_before)
            return Document(block, index, kind, parts, block.title, context=block.context, is_citable=is_citable)


def _parts(
    block: DocumentBlock, where: str, pages_before: int
) -> tuple[Literal["text", "pdf", "blocks"], list[str]]:
    match block.source:
        case TextSource(data=text):
            return "text", [text]
        case ContentSource(content=blocks):
            return "blocks", [_text(part, f"{where}.document.source.content.{i}") for i, part in enumerate(blocks)]
        case Base64Pdf(data=data):
            return "pdf", pages_of(_decoded(data), f"{where}.document.source", pages_before)
        case UrlSource(type=kind) | FileSource(type=kind):
            raise InvalidRequestError(f"{where}.document: this model does not support {kind} input")


def _text(part: TextBlock | ImageBlock, where: str) -> str:
    if isinstance(part, ImageBlock):
        raise InvalidRequestError(f"{where}.image: this model does not support image input")
    return part.text


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data)
    except ValueError:
        return b""  # no PDF, as what reads it will say
