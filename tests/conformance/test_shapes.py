"""What counts as a message, an error, a valid input."""

from typing import Any

import httpx
import pytest
from fake import answer

from commonweight.conformance.attachments import pdf
from commonweight.conformance.sections.documents import check_citation, document, search_result
from commonweight.conformance.shapes import check_error, check_instance, check_message, prompt_tokens
from commonweight.conformance.toolbox import WEATHER

Json = dict[str, Any]
WHOLE = answer({"model": "m", "max_tokens": 2})
USAGE = WHOLE["usage"]
CALL: Json = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}


def test_messages_that_are_whole() -> None:
    check_message(WHOLE)
    check_message(WHOLE | {"content": [CALL], "stop_reason": "tool_use"})
    check_message(WHOLE | {"content": [CALL], "stop_reason": "max_tokens"})
    check_message(WHOLE | {"stop_reason": "stop_sequence", "stop_sequence": "x"})
    check_message(WHOLE | {"usage": {"input_tokens": 1, "output_tokens": 0}})


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""},
        {"type": "completion"},
        {"role": "user"},
        {"model": None},
        {"content": "word"},
        {"content": [{"text": "word"}]},
        {"content": [{"type": "text"}]},
        {"content": [{"type": "text", "text": "x", "citations": "none"}]},
        {"content": [{"type": "thinking", "thinking": "Hm.", "signature": ""}]},
        {"content": [{"type": "redacted_thinking", "data": "x"}]},
        {"content": [CALL | {"input": "{}"}], "stop_reason": "tool_use"},
        {"content": [CALL], "stop_reason": "end_turn"},
        {"stop_reason": "tool_use"},
        {"stop_reason": "stop"},
        {"stop_reason": None},
        {"stop_reason": "stop_sequence"},
        {"stop_sequence": "x"},
        {"usage": None},
        {"usage": USAGE | {"input_tokens": None}},
        {"usage": USAGE | {"output_tokens": -1}},
        {"usage": USAGE | {"output_tokens": True}},
        {"usage": {"input_tokens": 1, "output_tokens": 1, "cache_read_input_tokens": 1}},
        {"usage": USAGE | {"cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 0}}},
    ],
)
def test_messages_that_are_not(change: Json) -> None:
    with pytest.raises(AssertionError):
        check_message(WHOLE | change)


def test_a_message_must_say_whether_a_stop_sequence_ended_it() -> None:
    with pytest.raises(AssertionError):
        check_message(
            {name: value for name, value in WHOLE.items() if name != "stop_sequence"} | {"stop_reason": "x"}
        )


def test_the_prompt_is_what_was_read_written_and_neither() -> None:
    assert (
        prompt_tokens({"input_tokens": 1, "cache_read_input_tokens": 20, "cache_creation_input_tokens": None})
        == 21
    )


ERROR = {"type": "error", "error": {"type": "not_found_error", "message": "gone"}}


def test_an_error() -> None:
    assert check_error(httpx.Response(404, json=ERROR), 404, "not_found_error") == "gone"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, ERROR),
        (404, {"detail": "Not Found"}),
        (404, {"error": {"type": "other", "message": "gone"}}),
        (404, {"error": {"type": "not_found_error", "message": ""}}),
        (404, {"error": {"type": "not_found_error", "message": "Traceback (most recent call last)"}}),
    ],
)
def test_what_is_no_such_error(status: int, body: Json) -> None:
    with pytest.raises(AssertionError):
        check_error(httpx.Response(status, json=body), 404, "not_found_error")


def test_instances_of_a_schema() -> None:
    check_instance({"city": "Oslo", "days": 2}, WEATHER["input_schema"])
    wrong: object
    for wrong in ({"city": "Rome", "days": 2}, {"city": "Oslo", "days": 9}, {"city": "Oslo"}, [], None):
        with pytest.raises(AssertionError):
            check_instance(wrong, WEATHER["input_schema"])


def char_location(cited: str, start: int, end: int) -> Json:
    place = {"document_index": 0, "start_char_index": start, "end_char_index": end}
    return {"type": "char_location", "cited_text": cited, **place}


def test_citations_stand_where_they_say() -> None:
    check_citation(char_location("The grass", 0, 9), document())
    for wrong in (char_location("The grass", 1, 10), char_location("the grass", 0, 9), char_location("", 0, 0)):
        with pytest.raises(AssertionError):
            check_citation(wrong, document())
    source = search_result()
    found: Json = {
        "type": "search_result_location",
        "cited_text": source["content"][1]["text"],
        "search_result_index": 0,
        "source": source["source"],
        "start_block_index": 1,
        "end_block_index": 2,
    }
    check_citation(found, source)
    for change in ({"source": "elsewhere"}, {"start_block_index": 0}, {"search_result_index": 1}):
        with pytest.raises(AssertionError):
            check_citation(found | change, source)


def test_the_pdf_holds_its_lines() -> None:
    pypdfium2 = pytest.importorskip("pypdfium2")
    read = pypdfium2.PdfDocument(pdf("First page.", "Second page."))
    assert [page.get_textpage().get_text_bounded() for page in read] == ["First page.", "Second page."]
