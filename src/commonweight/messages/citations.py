"""Wire models of citations: locations in the client's documents and search results.

Indices count from 0 and pages from 1; ends are exclusive. Documents and search results are counted apart, each in
the order of the request, those inside of tool results too.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from commonweight.messages.wire import optional_key


class DocumentLocation(BaseModel):
    """Common fields of locations in documents."""

    cited_text: str
    document_index: int
    document_title: str | None = None
    file_id: str | None = optional_key()


class CharLocation(DocumentLocation):
    """Character range of a plain-text document."""

    type: Literal["char_location"] = "char_location"
    start_char_index: int
    end_char_index: int


class PageLocation(DocumentLocation):
    """Page range of a PDF."""

    type: Literal["page_location"] = "page_location"
    start_page_number: int
    end_page_number: int


class ContentBlockLocation(DocumentLocation):
    """Block range of a document of content blocks. ``cited_text`` is all of their text."""

    type: Literal["content_block_location"] = "content_block_location"
    start_block_index: int
    end_block_index: int


class SearchResultLocation(BaseModel):
    """Block range of a search result. ``cited_text`` is all of their text."""

    type: Literal["search_result_location"] = "search_result_location"
    cited_text: str
    search_result_index: int
    source: str
    title: str | None = None
    start_block_index: int
    end_block_index: int


Citation = Annotated[
    CharLocation | PageLocation | ContentBlockLocation | SearchResultLocation, Field(discriminator="type")
]
