"""Segments of a request: every text that a client supplies, by place, and spans of it as the client sent it."""

import base64
from typing import Any

import pytest

from commonweight.guard import Part, Segment, extract_segments
from commonweight.guard.judge.judge import JudgeSubject
from commonweight.guard.screening.deciding import make_subject
from commonweight.messages.content import DocumentBlock
from commonweight.messages.request import MessageRequest

PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
WEATHER = {
    "name": "weather",
    "description": "Says what the sky does.",
    "input_schema": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "A town."},
            "type": {"type": "string", "enum": ["rain", "sun"]},
        },
    },
}


def request(messages: list[dict[str, Any]], **fields: Any) -> MessageRequest:
    return MessageRequest.model_validate({"model": "m", "max_tokens": 10, "messages": messages, **fields})


def places(found: tuple[Segment, ...]) -> list[tuple[str, list[tuple[str, str]]]]:
    return [(one.place, [(part.path, part.text) for part in one.parts]) for one in found]


def test_every_text_of_an_agents_request_has_its_place() -> None:
    found = extract_segments(
        request(
            [
                {"role": "user", "content": [{"type": "text", "text": "Hi."}, {"type": "text", "text": "Rain?"}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "text", "text": "I look."},
                        {
                            "type": "tool_use",
                            "id": "a",
                            "name": "weather",
                            "input": {"city": "Bergen", "n": [1, "x"]},
                        },
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "a",
                            "content": [
                                {"type": "text", "text": "Rain."},
                                {
                                    "type": "search_result",
                                    "source": "https://example.org",
                                    "title": "Sky",
                                    "content": [{"type": "text", "text": "Wet."}],
                                },
                            ],
                        },
                        {"type": "text", "text": "And then?"},
                    ],
                },
                {"role": "system", "content": "Be brief."},
            ],
            system=[{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}],
            tools=[WEATHER, {"type": "bash_20250124", "name": "bash"}],
        )
    )
    assert places(found) == [
        (
            "tools",
            [
                ("tools[0].name", "weather"),
                ("tools[0].description", "Says what the sky does."),
                ("tools[0].input_schema.properties.city", "city"),
                ("tools[0].input_schema.properties.city.description", "A town."),
                ("tools[0].input_schema.properties.type", "type"),
                ("tools[0].input_schema.properties.type.enum[0]", "rain"),
                ("tools[0].input_schema.properties.type.enum[1]", "sun"),
            ],
        ),
        ("system", [("system[0]", "One.")]),
        ("system", [("system[1]", "Two.")]),
        ("history", [("messages[0].content[0]", "Hi."), ("messages[0].content[1]", "Rain?")]),
        (
            "history",
            [
                ("messages[1].content[0]", "I look."),
                ("messages[1].content[1].input.city", "city"),
                ("messages[1].content[1].input.city", "Bergen"),
                ("messages[1].content[1].input.n", "n"),
                ("messages[1].content[1].input.n[1]", "x"),
            ],
        ),
        ("tool_result", [("messages[2].content[0].content[0]", "Rain.")]),
        (
            "document",
            [
                ("messages[2].content[0].content[1].title", "Sky"),
                ("messages[2].content[0].content[1].source", "https://example.org"),
                ("messages[2].content[0].content[1].content[0]", "Wet."),
            ],
        ),
        ("system", [("messages[3].content[0]", "Be brief.")]),
        ("input", [("messages[2].content[1]", "And then?")]),
    ]
    assert [one.tool for one in found] == ["weather", *[None] * 4, "weather", *[None] * 3]
    assert [one.is_user for one in found].count(True) == 2


def test_documents_of_all_kinds_are_read_after_extraction() -> None:
    of = request(
        [
            {
                "role": "user",
                "content": [
                    {"type": "document", "title": "T", "context": "C", "source": PDF},
                    {
                        "type": "document",
                        "source": {"type": "text", "media_type": "text/plain", "data": "Plain."},
                    },
                    {"type": "document", "source": {"type": "content", "content": "Block."}},
                    {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
                    {"type": "text", "text": "Summarise."},
                ],
            }
        ]
    )
    blocks = of.messages[0].content
    assert isinstance(blocks[0], DocumentBlock)
    texts = {id(blocks[0]): ["Page one.", "Page two."], id(blocks[3]): ["Uploaded."]}
    path = "messages[0].content"
    assert places(extract_segments(of, texts)) == [
        (
            "document",
            [(f"{path}[0].title", "T"), (f"{path}[0].context", "C"), (f"{path}[0]", "Page one.\nPage two.")],
        ),
        ("document", [(f"{path}[1]", "Plain.")]),
        ("document", [(f"{path}[2].source.content[0]", "Block.")]),
        ("document", [(f"{path}[3]", "Uploaded.")]),
        ("input", [(f"{path}[4]", "Summarise.")]),
    ]


def test_a_begun_answer_is_history_and_the_turn_before_it_the_users() -> None:
    found = extract_segments(
        request([{"role": "user", "content": "Tell me."}, {"role": "assistant", "content": "Once upon"}])
    )
    assert [(one.place, one.text) for one in found] == [("history", "Once upon"), ("input", "Tell me.")]


def test_messages_of_closed_exchanges_are_left_out() -> None:
    found = extract_segments(
        request(
            [
                {"role": "user", "content": "One."},
                {"role": "assistant", "content": "[refused]"},
                {"role": "user", "content": "Two."},
            ]
        ),
        closed={0, 1},
    )
    assert [(one.place, one.text) for one in found] == [("input", "Two.")]


def test_json_that_is_nested_deeply_is_read() -> None:
    value: Any = "end"
    for _ in range(150):
        value = {"a": [value]}
    tool = {**WEATHER, "input_examples": [value]}
    [found, _] = extract_segments(request([{"role": "user", "content": "x"}], tools=[tool]))
    assert found.parts[-1].text == "end"


ANSWERED: list[dict[str, Any]] = [{"role": "user", "content": "x"}]


def tool_texts(**fields: Any) -> list[tuple[str, str]]:
    tool = {"name": "t", "input_schema": {"type": "object"}, **fields}
    found = extract_segments(request(ANSWERED, tools=[tool]))
    assert [one.place for one in found] == ["tools", "input"]
    return [(part.path.removeprefix("tools[0]."), part.text) for part in found[0].parts][1:]


@pytest.mark.parametrize(
    ("schema", "texts"),
    [
        ({"properties": {"Say it.": {"type": "string"}}}, ["Say it."]),
        ({"properties": {"a": {"properties": {"Say it.": True}}}}, ["a", "Say it."]),
        ({"patternProperties": {"^Say it": {}}}, ["^Say it"]),
        ({"$defs": {"Say it.": {"type": "object"}}}, ["Say it."]),
        ({"definitions": {"Say": {"title": "it."}}}, ["Say", "it."]),
        ({"title": "Say it."}, ["Say it."]),
        ({"properties": {"type": {"const": "Say it."}}}, ["type", "Say it."]),
        ({"properties": {"a": {"enum": ["Say", {"it": 1}, None]}}}, ["a", "Say", "it"]),
        ({"default": {"properties": {"type": "object"}}}, ["properties", "type", "object"]),
        ({"anyOf": [{"title": "Say"}, {"not": {"title": "it."}}]}, ["Say", "it."]),
        ({"dependentRequired": {"a": ["b", "c"]}, "properties": {"b": {}}}, ["a", "c", "b"]),
        ({"Say it.": {"type": "string"}}, ["Say it.", "type", "string"]),
        # A keyword with a value that is none of its own.
        ({"properties": {"a": {"type": "Say it."}}}, ["a", "Say it."]),
        ({"properties": {"a": {"type": ["string", "Say it."], "format": "Say it."}}}, ["a", "Say it.", "Say it."]),
        ({"properties": {"a": {"type": {"string": "Say it."}}}}, ["a", "string", "Say it."]),
        ({"properties": "Say it."}, ["Say it."]),
        ({"minLength": "Say it."}, ["Say it."]),
        ({"pattern": "Say it."}, ["Say it."]),
        ({"$id": "Say it.", "$schema": "Say it.", "$comment": "Say it."}, ["Say it."] * 3),
        # Names that are required, and references, to what is defined and to what is not.
        ({"required": ["a", "Say it."], "properties": {"a": {}}}, ["Say it.", "a"]),
        ({"$ref": "#/$defs/a%20b/items/0", "$defs": {"a b": {"items": [{}]}}}, ["a b"]),
        ({"$ref": "#/$defs/Say it."}, ["#/$defs/Say it."]),
        ({"$ref": "Say it."}, ["Say it."]),
    ],
)
def test_what_a_schema_says_beside_its_own_words_is_read(schema: dict[str, Any], texts: list[str]) -> None:
    assert [text for _, text in tool_texts(input_schema={"type": "object", **schema})] == texts


def test_a_schema_in_its_own_words_says_nothing() -> None:
    plain = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "items": {"type": ["string", "null"], "format": "date-time", "minLength": 3},
        "additionalProperties": False,
        "required": [],
        "$ref": "#",
    }
    assert tool_texts(input_schema=plain) == []


def test_names_in_examples_are_read_and_of_a_published_tool_nothing_else() -> None:
    examples = [{"Say it.": [{"Say": "that."}], "n": 1}]
    texts = ["Say it.", "Say", "that.", "n"]
    assert [text for _, text in tool_texts(input_examples=examples)] == texts
    bash = {"type": "bash_20250124", "name": "bash"}
    assert [one.place for one in extract_segments(request(ANSWERED, tools=[bash]))] == ["input"]
    [found, _] = extract_segments(request(ANSWERED, tools=[{**bash, "input_examples": examples}]))
    assert (found.place, found.tool, [part.text for part in found.parts]) == ("tools", "bash", texts)


def test_a_long_name_is_read_whole_and_cut_in_the_paths_below_it() -> None:
    # With the whole name in each path it would take 10 GB.
    name, many = "Say it. " * 25_000, 50_000
    for fields in (
        {"input_examples": [{name: [0] * many}]},
        {"input_schema": {"type": "object", "properties": {name: {"enum": [0] * many}}}},
    ):
        [(path, text)] = tool_texts(**fields)
        assert text == name
        assert len(path) < 200
        assert path.endswith("Say it. …")


def test_of_earlier_calls_and_results_names_are_read_as_well() -> None:
    call = {"type": "tool_use", "id": "a", "name": "t", "input": {"Say": {"it": "now"}}}
    other = {"type": "mcp_tool_use", "id": "b", "name": "Say it.", "input": {"Say": 1}}
    result = {"type": "mcp_tool_result", "tool_use_id": "b", "content": [{"Said": "that."}]}
    upload = {"type": "container_upload", "file_id": "Say it."}
    answer = {"role": "assistant", "content": [other, result, upload, call]}
    back = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "Done."}]}
    tool = {"name": "t", "input_schema": {"type": "object"}}
    found = extract_segments(request([*ANSWERED, answer, back], tools=[tool]))
    texts = [(one.place, [part.text for part in one.parts]) for one in found]
    assert ("history", ["Say it.", "Say", "Say it.", "Say", "it", "now"]) in texts
    assert ("tool_result", ["Said", "that."]) in texts


SEGMENT = Segment("input", (Part("a", "one two"), Part("b", "three"), Part("c", "four five six")))


@pytest.mark.parametrize(
    ("piece", "block", "text"),
    [
        ("two", "a", "two"),
        ("three", "b", "three"),
        ("five six", "c", "five six"),
        ("o\n\nthree", "b", "three"),
        ("two\n\nt", "a", "two"),
        ("one two\n\nthree\n\nfour five six", "c", "four five six"),
    ],
)
def test_a_span_is_told_as_a_block_and_its_characters(piece: str, block: str, text: str) -> None:
    start = SEGMENT.text.index(piece)
    found = SEGMENT.locate((start, start + len(piece)))
    assert found.block == block
    assert found.span is not None
    sent = {part.path: part.text for part in SEGMENT.parts}[block]
    assert sent[slice(*found.span)] == text


@pytest.mark.parametrize("span", [(0, 0), (5, 2), (0, 10_000), (7, 9)])
def test_a_span_that_is_none_of_the_text_is_null_rather_than_wrong(span: tuple[int, int]) -> None:
    assert SEGMENT.locate(span).span is None


@pytest.mark.parametrize(
    ("block", "texts"),
    [
        (
            {"type": "server_tool_use", "id": "a", "name": "Say it.", "input": {"Say": "that."}},
            {"Say it.", "Say", "that."},
        ),
        ({"type": "container_upload", "file_id": "Say it."}, {"Say it."}),
        ({"type": "mcp_tool_result", "tool_use_id": "a", "content": {"Say it.": 1}}, {"Say it."}),
    ],
)
def test_what_has_no_place_in_a_users_message_is_the_users_text(block: dict[str, Any], texts: set[str]) -> None:
    messages = [{"role": "user", "content": [block]}]
    request = MessageRequest.model_validate({"model": "m", "max_tokens": 9, "messages": messages})
    [asked] = extract_segments(request)
    assert asked.place == "input"
    assert asked.is_last_message
    assert texts <= {part.text for part in asked.parts}


def test_a_users_text_before_the_last_message_is_not_all_that_states_are_read_of() -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "One."}, {"role": "user", "content": "Two."}]
    request = MessageRequest.model_validate({"model": "m", "max_tokens": 9, "messages": messages})
    [asked] = extract_segments(request)
    assert (asked.text, asked.is_last_message) == ("One.\n\nTwo.", False)


def test_the_judge_is_shown_a_text_without_its_disguise() -> None:
    hidden = Segment("document", (Part("messages[0].content[0]", "\u200b" * 9 + "An umbrella is red."),))
    assert make_subject(hidden, (9, 20)) == JudgeSubject("document", "An umbrella is red.", (0, 11))
    encoded = base64.b64encode(b"An umbrella is red, and so on.").decode()
    subject = make_subject(Segment("document", (Part("messages[0].content[0]", encoded),)), (3, 9))
    assert subject.text == f"An umbrella is red, and so on.\n\n{encoded}"
