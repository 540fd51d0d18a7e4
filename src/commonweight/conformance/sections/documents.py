"""Documents, search results, citations and images: sections 6, 9.4 and 11."""

from commonweight.conformance.attachments import base64_source, pdf, png
from commonweight.conformance.checks import NotApplicableError, check
from commonweight.conformance.conversation import ROUND_TRIP, Json, assistant, result, text, user
from commonweight.conformance.target import Target
from commonweight.conformance.toolbox import WEATHER

LINES = "The grass in the garden is green.", "The sky above the garden is blue.", "The fence is painted white."
PLAIN = " ".join(LINES)
CITED: Json = {"citations": {"enabled": True}}
IMAGE: Json = {"type": "image", "source": base64_source("image/png", png())}


@check()
async def a_text_document(target: Target) -> None:
    """A document of plain text is part of the prompt, with its title and context (§6)."""
    bare = await target.count_prompt_tokens()
    alone = await target.count_prompt_tokens(messages=ask(document()))
    titled = await target.count_prompt_tokens(
        messages=ask(document() | {"title": "The garden", "context": "Written in May."})
    )
    assert alone > bare + 15, f"{alone} tokens with the document, {bare} without"
    assert titled > alone, f"{titled} tokens with title and context, {alone} without"


@check()
async def a_document_of_blocks(target: Target) -> None:
    """A document of content blocks, or of one string, is part of the prompt (§6)."""
    bare = await target.count_prompt_tokens()
    for content in ([text(line) for line in LINES], PLAIN):
        size = await target.count_prompt_tokens(
            messages=ask({"type": "document", "source": {"type": "content", "content": content}})
        )
        assert size > bare + 15, f"{size} tokens with the document, {bare} without"


@check(needs="pdf_input")
async def a_pdf(target: Target) -> None:
    """The text of a PDF is part of the prompt, of every page (§6)."""
    bare, one, three = (
        await target.count_prompt_tokens(),
        await target.count_prompt_tokens(messages=ask(pdf_document(LINES[0]))),
        await target.count_prompt_tokens(messages=ask(pdf_document(*LINES))),
    )
    assert bare < one < three, f"{bare} tokens without a PDF, {one} with a page, {three} with three"


@check(lacks="pdf_input")
async def no_pdf_where_there_is_none(target: Target) -> None:
    """A server that cannot read PDFs refuses one in the words that agents act on (§9.4)."""
    refusal = await target.read_refusal(messages=ask(pdf_document(LINES[0])))
    assert "does not support pdf input" in refusal.lower(), f"refused in other words: {refusal}"


@check()
async def documents_that_cannot_be(target: Target) -> None:
    """A broken PDF, broken base64 and unknown sources are refused, by their place (§6, §9.1)."""
    for source in (
        base64_source("application/pdf", b"no PDF at all"),
        {"type": "base64", "media_type": "application/pdf", "data": "%%%"},
        {"type": "base64", "media_type": "application/zip", "data": "AAAA"},
        {"type": "carrier_pigeon"},
    ):
        refusal = await target.read_refusal(messages=ask({"type": "document", "source": source}))
        assert "messages.0.content.0" in refusal, f"the refusal does not say where: {refusal}"


@check()
async def documents_in_tool_results(target: Target) -> None:
    """Documents within a tool result are part of the prompt (§6)."""
    empty = await target.count_prompt_tokens(tools=[WEATHER], messages=after_tool_result([text("See below.")]))
    size = await target.count_prompt_tokens(
        tools=[WEATHER], messages=after_tool_result([text("See below."), document()])
    )
    assert size > empty + 15, f"{size} tokens with the document, {empty} without"


@check(needs="pdf_input")
async def a_pdf_in_a_tool_result(target: Target) -> None:
    """A PDF within a tool result, as agents send what they read, is part of the prompt (§6)."""
    empty = await target.count_prompt_tokens(tools=[WEATHER], messages=after_tool_result([text("PDF file read.")]))
    size = await target.count_prompt_tokens(
        tools=[WEATHER], messages=after_tool_result([text("PDF file read."), pdf_document(*LINES)])
    )
    assert size > empty + 15, f"{size} tokens with the PDF, {empty} without"


@check()
async def search_results(target: Target) -> None:
    """Search results are part of the prompt, from the user and from a tool (§6)."""
    bare = await target.count_prompt_tokens()
    size = await target.count_prompt_tokens(messages=ask(search_result()))
    assert size > bare + 15, f"{size} tokens with a search result, {bare} without"
    await target.create_message(tools=[WEATHER], messages=after_tool_result([search_result()]), max_tokens=1)


@check()
async def uncited_documents(target: Target) -> None:
    """Where citations are not asked for there are none (§11)."""
    message = await target.create_message(messages=ask(document(), "Quote it."), max_tokens=24)
    assert not citations_of(message), f"citations: {citations_of(message)}"


@check(needs="citations")
async def citations_of_text(target: Target) -> None:
    """`cited_text` is exactly the document between the two characters (§11)."""
    await check_citations(target, document(), first_line("char", start_char_index=0, end_char_index=len(LINES[0])))


@check(needs="citations")
async def citations_of_blocks(target: Target) -> None:
    """`cited_text` is exactly what the cited blocks hold (§11)."""
    source = {"type": "content", "content": [text(line) for line in LINES]}
    first = first_line("content_block", start_block_index=0, end_block_index=1)
    await check_citations(target, {"type": "document", "source": source}, first)


@check(needs="citations pdf_input")
async def citations_of_pages(target: Target) -> None:
    """Citations of a PDF name its pages, from 1, the end exclusive (§11)."""
    await check_citations(target, pdf_document(*LINES), first_line("page", start_page_number=1, end_page_number=2))


@check(needs="citations")
async def citations_of_search_results(target: Target) -> None:
    """Citations of a search result name it, its source and its blocks (§11)."""
    source = search_result()
    first: Json = {
        "type": "search_result_location",
        "cited_text": LINES[0],
        "search_result_index": 0,
        "source": source["source"],
        "title": source["title"],
        "start_block_index": 0,
        "end_block_index": 1,
    }
    await check_citations(target, source, first)


@check(lacks="image_input")
async def no_image_where_there_is_none(target: Target) -> None:
    """A model that sees nothing refuses an image by its place, so that agents can leave it out (§9.4)."""
    refusal = await target.read_refusal(messages=[user([text("Look:"), IMAGE])])
    assert refusal.startswith("messages.0.content.1.image"), f"the refusal does not name the block: {refusal}"
    refusal = await target.read_refusal(tools=[WEATHER], messages=after_tool_result([text("Look:"), IMAGE]))
    place = "messages.2.content.0.tool_result.content.1.image"
    assert refusal.startswith(place), f"the refusal does not name the block: {refusal}"


@check(needs="image_input")
async def an_image(target: Target) -> None:
    """An image is part of the prompt, from the user and in a tool result (§6)."""
    bare, size = await target.count_prompt_tokens(), await target.count_prompt_tokens(messages=ask(IMAGE))
    assert size > bare, f"{size} tokens with an image, {bare} without"
    await target.create_message(tools=[WEATHER], messages=after_tool_result([IMAGE]), max_tokens=1)


@check()
async def images_that_cannot_be(target: Target) -> None:
    """Broken base64 and unknown types of image are refused, by their place (§6)."""
    for source in (
        {"type": "base64", "media_type": "image/png", "data": "%%%"},
        {"type": "base64", "media_type": "image/tiff", "data": "AAAA"},
    ):
        refusal = await target.read_refusal(messages=ask({"type": "image", "source": source}))
        assert "messages.0.content.0" in refusal, f"the refusal does not say where: {refusal}"


def document() -> Json:
    """Three sentences as plain text."""
    return {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": PLAIN}}


def pdf_document(*pages: str) -> Json:
    """A PDF."""
    return {"type": "document", "source": base64_source("application/pdf", pdf(*pages))}


def search_result() -> Json:
    """A search result of three blocks."""
    content = [text(line) for line in LINES]
    return {"type": "search_result", "source": "https://example.com/garden", "title": "Garden", "content": content}


def ask(block: Json, question: str = "Say hello.") -> list[Json]:
    """A block, and a question after it."""
    return [user([block, text(question)])]


def after_tool_result(content: list[Json]) -> list[Json]:
    """A conversation whose last message is a tool's result."""
    return [*ROUND_TRIP[:2], user([result(content)])]


def citations_of(message: Json) -> list[Json]:
    """All citations."""
    return [citation for block in message["content"] for citation in block.get("citations") or []]


def first_line(kind: str, **place: int) -> Json:
    """A citation of the first line of a document."""
    location = {"type": f"{kind}_location", "cited_text": LINES[0], "document_index": 0, "document_title": None}
    return {**location, **place}


async def check_citations(target: Target, source: Json, first: Json) -> None:
    """Whatever an answer cites, streamed or not, is there word for word.

    A model cites when it wants to. To help a small one, the conversation holds an answer that does.
    """
    said = 0
    shown = assistant([text(LINES[0], citations=[first])])
    for line in ("first", "second"):
        question = user(f"Quote the {line} sentence, as before.")
        messages = [*ask(source | CITED, "Quote the first sentence."), shown, question]
        arguments: Json = {"messages": messages, "max_tokens": 64, "temperature": 0}
        whole, stream = await target.create_message(**arguments), await target.stream(**arguments)
        for message in (whole, stream.message):
            for citation in citations_of(message):
                assert citation["type"] == first["type"], f"the type is {citation['type']}, not {first['type']}"
                check_citation(citation, source)
                said += 1
        streamed = len(stream.deltas("citations_delta"))
        assert streamed == len(citations_of(stream.message)), f"{streamed} citations came in deltas"
    if not said:
        raise NotApplicableError("the model cited nothing, although it was shown how")


def check_citation(citation: Json, source: Json) -> None:
    """The cited text stands in its source at the place that is given, word for word."""
    cited = citation["cited_text"]
    assert cited.strip(), "a citation of nothing"
    match citation:
        case {"type": "char_location", "document_index": 0, "start_char_index": start, "end_char_index": end}:
            there = source["source"]["data"][start:end]
        case {
            "type": "content_block_location",
            "document_index": 0,
            "start_block_index": start,
            "end_block_index": end,
        }:
            there = "".join(block["text"] for block in source["source"]["content"][start:end])
        case {"type": "search_result_location", "search_result_index": 0, "start_block_index": start} if (
            citation["source"] == source["source"]
        ):
            there = "".join(block["text"] for block in source["content"][start : citation["end_block_index"]])
        case {"type": "page_location", "document_index": 0, "start_page_number": start, "end_page_number": end}:
            assert 1 <= start < end <= len(LINES) + 1, f"pages {start} to {end} of {len(LINES)}"
            assert all(word in PLAIN for word in cited.split()), f"{cited!r} is not in the document"
            return
        case _:
            raise AssertionError(f"a citation of another shape: {citation}")
    assert cited == there, f"cited is {cited!r}, and there is {there!r}"
