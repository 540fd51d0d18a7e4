"""Documents of a request: their text, their numbers, and where a quote of them stands."""

import asyncio
import base64
from typing import Any, Literal, get_args

import pytest
from hostile import assistant, document, found, text, tool_result, user
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from commonweight.documents import DocumentReader, Limits
from commonweight.messages.citations import (
    CharLocation,
    Citation,
    ContentBlockLocation,
    PageLocation,
    SearchResultLocation,
)
from commonweight.messages.content import DocumentBlock
from commonweight.messages.conversation import MessageParam
from commonweight.messages.errors import InvalidRequestError
from commonweight.prompting.documents import Document, FileContents, collect_documents, locate_quote, read_files
from pdf_files import pdf

MESSAGES = TypeAdapter(list[MessageParam])
ANY = DocumentBlock.model_validate(document())
Kind = Literal["text", "pdf", "blocks", "search_result"]
LINES = st.text(st.sampled_from("ab \n\t\u3000é"), max_size=12)


def pdf_document(data: bytes | str) -> dict[str, Any]:
    data = data if isinstance(data, str) else base64.b64encode(data).decode()
    return {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": data}}


def collected(*messages: dict[str, Any]) -> list[Document]:
    parsed = MESSAGES.validate_python(list(messages))

    async def read() -> FileContents:
        async with DocumentReader(Limits(pages=3)) as reader:
            return await read_files(parsed, reader, None)

    return collect_documents(parsed, asyncio.run(read()))


def of(kind: Kind, *parts: str) -> Document:
    return Document(ANY, 7, kind, list(parts), "T", source="S")


def bare(quote: str) -> str:
    return "".join(quote.split())


def test_every_kind_becomes_text_with_its_parts() -> None:
    documents = collected(
        user([document("one", title="T", context="C"), document([text("a"), text(""), text("b")]), text("look")]),
        assistant("yes"),
        user([pdf_document(pdf("first page", "", "last")), found(title="R", source="S", content=[text("c")])]),
    )
    assert documents == [
        Document(ANY, 0, "text", ["one"], "T", context="C"),
        Document(ANY, 1, "blocks", ["a", "", "b"], None),
        Document(ANY, 2, "pdf", ["first page", "", "last"], None),
        Document(ANY, 0, "search_result", ["c"], "R", source="S"),
    ]


def test_documents_and_search_results_count_on_their_own_also_inside_tool_results() -> None:
    documents = collected(
        user([found(), document("a"), text("and"), document("b")]),
        assistant([{"type": "tool_use", "id": "toolu_1", "name": "x", "input": {}}, document("c")]),
        user([tool_result([text("so"), found(), document("d"), found()]), found(), document("e")]),
    )
    assert [(document.kind, document.index) for document in documents] == [
        ("search_result", 0),
        ("text", 0),
        ("text", 1),
        ("text", 2),
        ("search_result", 1),
        ("text", 3),
        ("search_result", 2),
        ("search_result", 3),
        ("text", 4),
    ]


@pytest.mark.parametrize(
    ("fields", "is_citable"),
    [
        ({}, False),
        ({"citations": None}, False),
        ({"citations": {}}, False),
        ({"citations": {"enabled": False}}, False),
        ({"citations": {"enabled": True}}, True),
    ],
)
def test_the_client_asks_for_citations(fields: dict[str, Any], is_citable: bool) -> None:
    assert [each.is_citable for each in collected(user([document(**fields), found(**fields)]))] == [is_citable] * 2


NOT_VALID = "document.source: The PDF specified was not valid: it could not be read as a PDF"


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (pdf_document(b"no"), NOT_VALID),
        (pdf_document("not base64!"), NOT_VALID),
        (pdf_document("é"), NOT_VALID),
        (pdf_document(pdf("a", password=True)), "document.source: The PDF specified is password protected."),
        (
            document([text("a"), {"type": "image", "source": {"type": "url", "url": "u"}}]),
            "document.source.content.1.image: this model does not support image input",
        ),
        (
            {"type": "document", "source": {"type": "url", "url": "u"}},
            "document: this model does not support url input",
        ),
        (
            {"type": "document", "source": {"type": "file", "file_id": "f"}},
            "document: this model does not support file input",
        ),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(block: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError) as error:
        collected(user([text("a"), block]))
    assert error.value.message == f"messages.0.content.1.{message}"
    with pytest.raises(InvalidRequestError) as error:
        collected(user([tool_result([block])]))
    assert error.value.message == f"messages.0.content.0.tool_result.content.0.{message}"


def test_the_pages_of_all_documents_count_together() -> None:
    two = pdf_document(pdf("a", "b"))
    assert len(collected(user([two, document([text("c")] * 9), pdf_document(pdf("d"))]))) == 3
    with pytest.raises(InvalidRequestError, match=r"^messages\.0\.content\.1\..*maximum of 3 PDF pages"):
        collected(user([two, two]))


PAGES = ("It was the best\nof times, it was", "the worst of times.", "", "The end of times.")


def chars(start: int, end: int, cited: str) -> Citation:
    return CharLocation(
        cited_text=cited, document_index=7, document_title="T", start_char_index=start, end_char_index=end
    )


def pages(start: int, end: int, cited: str) -> Citation:
    return PageLocation(
        cited_text=cited, document_index=7, document_title="T", start_page_number=start, end_page_number=end
    )


def blocks(start: int, end: int, cited: str) -> Citation:
    return ContentBlockLocation(
        cited_text=cited, document_index=7, document_title="T", start_block_index=start, end_block_index=end
    )


def results(start: int, end: int, cited: str) -> Citation:
    return SearchResultLocation(
        cited_text=cited,
        search_result_index=7,
        source="S",
        title="T",
        start_block_index=start,
        end_block_index=end,
    )


@pytest.mark.parametrize(
    ("cited", "quote", "citation"),
    [
        (of("text", "The grass is green."), "grass", chars(4, 9, "grass")),
        (of("text", "The grass is green."), " grass\n", chars(4, 9, "grass")),
        (of("text", "a  b a b"), "a b", chars(5, 8, "a b")),
        (of("text", "so a\n\t b!"), "a b", chars(3, 8, "a\n\t b")),
        (of("text", "漢字かな"), "字 か", chars(1, 3, "字か")),
        (of("pdf", *PAGES), "best of times", pages(1, 2, "best\nof times")),
        (of("pdf", *PAGES), "worst", pages(2, 3, "worst")),
        (of("pdf", *PAGES), "it was the worst", pages(1, 3, "it was\nthe worst")),
        (of("pdf", *PAGES), "worst of times. The end", pages(2, 5, "worst of times.\n\nThe end")),
        (of("blocks", "one", "", "two three"), "one", blocks(0, 1, "one")),
        (of("blocks", "one", "", "two three"), "three", blocks(2, 3, "two three")),
        (of("blocks", "one", "", "two three"), "one two", blocks(0, 3, "onetwo three")),
        (of("search_result", "one", "two"), "tw", results(1, 2, "two")),
        (of("text", "The grass is green."), "The sky", None),
        (of("text", "The grass is green."), "the grass", None),
        (of("text", "The grass is green."), " \n", None),
        (of("text", ""), "a", None),
    ],
)
def test_where_a_quote_stands(cited: Document, quote: str, citation: Citation | None) -> None:
    assert locate_quote(cited, quote) == citation


@given(st.text(), st.data())
def test_any_piece_of_a_text_is_found_exactly(content: str, data: st.DataObject) -> None:
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    quote = content[start:end].strip()
    place = content.find(quote)
    expected = chars(place, place + len(quote), quote) if quote else None
    assert locate_quote(of("text", content), content[start:end]) == expected


@given(st.sampled_from(get_args(Kind)), st.lists(LINES, min_size=1, max_size=4), st.data())
def test_any_piece_is_found_across_parts_with_any_white_space(
    kind: Kind, parts: list[str], data: st.DataObject
) -> None:
    whole = "\n".join(parts)
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    quote = data.draw(st.sampled_from([" ", "\n\n", ""])).join(whole[start:end].split())
    match locate_quote(of(kind, *parts), quote):
        case None:
            assert not quote
        case CharLocation(start_char_index=start, end_char_index=end, cited_text=cited):
            assert whole[start:end] == cited
            assert bare(cited) == bare(quote)
        case PageLocation(start_page_number=start, end_page_number=end, cited_text=cited):
            assert bare(cited) == bare(quote)
            assert_needed(parts[start - 1 : end - 1], quote)
        case ContentBlockLocation(start_block_index=start, end_block_index=end, cited_text=cited):
            assert cited == "".join(parts[start:end])
            assert_needed(parts[start:end], quote)
        case SearchResultLocation(start_block_index=start, end_block_index=end, cited_text=cited):
            assert cited == "".join(parts[start:end])
            assert_needed(parts[start:end], quote)


def assert_needed(parts: list[str], quote: str) -> None:
    """The parts hold the quote, and the first and the last of them a piece of it."""
    place = bare("".join(parts)).find(bare(quote))
    assert 0 <= place < max(len(bare(parts[0])), 1)
    assert all(bare(quote) not in bare("".join(parts[:-1])) for _ in parts[1:])


@given(LINES, LINES)
def test_nothing_else_is_found(content: str, quote: str) -> None:
    is_there = bare(quote) != "" and bare(quote) in bare(content)
    assert (locate_quote(of("text", content), quote) is not None) is is_there
