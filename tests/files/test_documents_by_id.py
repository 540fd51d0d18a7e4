"""Documents of messages that are files uploaded before."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from file_server import FileServer, serving

from commonweight.prompting import documents
from commonweight.store import Database
from pdf_files import MEMORY_BOMBS, pdf

MODEL = "m"
SAID = 'So it is.<cite doc="0">The sky is blue.</cite>'
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


@pytest.fixture
async def served(database: Database, tmp_path: Path) -> AsyncIterator[FileServer]:
    async with serving(database, tmp_path / "files", lambda _: SAID) as served:
        yield served


@pytest.fixture
async def client(served: FileServer) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=served.url, api_key=served.alice, max_retries=0) as client:
        yield client


def document(file_id: str, **more: Any) -> dict[str, Any]:
    source = {"type": "file", "file_id": file_id}
    return {"type": "document", "source": source, "citations": {"enabled": True}, **more}


def asking(*blocks: dict[str, Any]) -> list[Any]:
    return [{"role": "user", "content": [*blocks, {"type": "text", "text": "What is blue?"}]}]


async def answered(client: anthropic.AsyncAnthropic, messages: list[Any]) -> anthropic.types.Message:
    return await client.messages.create(model=MODEL, max_tokens=100, messages=messages)


async def put(client: anthropic.AsyncAnthropic, data: bytes, name: str = "upload") -> str:
    return (await client.files.upload(file=(name, data))).id


async def test_a_pdf_is_read_and_cited(served: FileServer, client: anthropic.AsyncAnthropic) -> None:
    file_id = await put(client, pdf("The grass is green.", "The sky is blue."))
    messages = asking(document(file_id, title="Colours"))
    message = await answered(client, messages)
    [block] = message.content
    assert block.type == "text"
    assert block.text == "So it is."
    assert [citation.to_dict() for citation in block.citations or []] == [
        {
            "type": "page_location",
            "cited_text": "The sky is blue.",
            "document_index": 0,
            "document_title": "Colours",
            "file_id": file_id,
            "start_page_number": 2,
            "end_page_number": 3,
        }
    ]
    assert "Colours\nThe grass is green.\nThe sky is blue." in served.engine.prompts[0]
    # The same as within the request, to the token.
    counted = await client.messages.count_tokens(model=MODEL, messages=messages)
    assert counted.input_tokens == message.usage.input_tokens
    text = {"type": "content", "content": [{"type": "text", "text": "The grass is green.\nThe sky is blue."}]}
    inside = asking({**document(""), "source": text, "title": "Colours"})
    assert (await client.messages.count_tokens(model=MODEL, messages=inside)).input_tokens == counted.input_tokens
    await client.files.delete(file_id)
    with pytest.raises(anthropic.NotFoundError, match=f"File not found: {file_id}"):
        await answered(client, messages)


async def test_text_is_read_inside_tool_results_too(served: FileServer, client: anthropic.AsyncAnthropic) -> None:
    file_id = await put(client, "Grüße. The sky is blue.".encode(), "a.txt")
    call = {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [document(file_id)]}
    messages = [
        {"role": "user", "content": "What is blue?"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    message = await answered(client, messages)
    [block] = message.content
    assert block.type == "text"
    [citation] = block.citations or []
    assert citation.type == "char_location"
    assert (citation.file_id, citation.start_char_index, citation.end_char_index) == (file_id, 7, 23)
    assert "Grüße. The sky is blue." in served.engine.prompts[0]
    assert (await client.messages.count_tokens(model=MODEL, messages=messages)).input_tokens > 20  # type: ignore[arg-type]
    again = asking(document(file_id), document(file_id, citations={"enabled": False}))
    assert (await answered(client, again)).content


async def test_only_ones_own_files_can_be_read(served: FileServer, client: anthropic.AsyncAnthropic) -> None:
    file_id = await put(client, b"The sky is blue.")
    async with anthropic.AsyncAnthropic(base_url=served.url, api_key=served.bob, max_retries=0) as other:
        for name in (file_id, "file_unknown", "", "file_\0", "../../etc/passwd"):
            for call in (
                answered(other, asking(document(name))),
                other.messages.count_tokens(model=MODEL, messages=asking(document(name))),
            ):
                with pytest.raises(anthropic.NotFoundError, match="File not found") as caught:
                    await call
                assert caught.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    assert served.engine.prompts == []
    # Whoever may ask the model may ask it about the tenant's files.
    async with anthropic.AsyncAnthropic(base_url=served.url, api_key=served.models_only) as same:
        assert (await answered(same, asking(document(file_id)))).content


async def test_what_cannot_be_read(client: anthropic.AsyncAnthropic, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = await put(client, PNG)
    binary = await put(client, b"\0\1\2\xff")
    broken = await put(client, b"%PDF-1.4 but nothing follows")
    locked = await put(client, pdf("secret", password=True))
    where = "messages.0.content.0.document.source"
    for file_id, said in (
        (picture, f"{where}: a document can be a PDF or UTF-8 text, and this file is image/png"),
        (binary, f"{where}: a document can be a PDF or UTF-8 text, and this file is application/octet-stream"),
        (broken, f"{where}: The PDF specified was not valid"),
        (locked, f"{where}: The PDF specified is password protected."),
    ):
        with pytest.raises(anthropic.BadRequestError, match=said):
            await answered(client, asking(document(file_id)))
    image = {"type": "image", "source": {"type": "file", "file_id": picture}}
    with pytest.raises(anthropic.BadRequestError, match=r"0\.image: this model does not support image"):
        await answered(client, asking(image))
    bomb = document(await put(client, MEMORY_BOMBS["a form that lists itself"]))
    with pytest.raises(anthropic.BadRequestError, match="not valid: reading it takes too much memory"):
        await answered(client, asking(bomb))
    monkeypatch.setattr(documents, "MAX_FILE_BYTES", 100)
    large = await put(client, b"x" * 60)
    assert (await answered(client, asking(document(large)))).content
    with pytest.raises(anthropic.BadRequestError, match="the files of a request may have 100 bytes together"):
        await answered(client, asking(document(large), document(large)))
