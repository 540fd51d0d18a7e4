"""Formats of rows, each as public datasets write it, and rows that do not fit."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonweight.workshop.data.formats import FormatError, parse_content, recognise_format
from commonweight.workshop.data.rows import Content, Message
from commonweight.workshop.data.settings import Format

SECRET = "quicksilver"
USER, ASSISTANT = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
OTHER = {"role": "assistant", "content": "No reason."}
QUESTION, ANSWER = Message("user", "Why?"), Message("assistant", "Because.")


def read(fields: dict[str, Any]) -> Content | None:
    found = recognise_format(fields)
    assert found is not None
    return parse_content(fields, found)


def test_plain_text() -> None:
    assert read({"text": "A line.\n"}) == Content("text", text="A line.\n")


def test_messages() -> None:
    system = {"role": "system", "content": "Be brief."}
    assert read({"messages": [system, USER, ASSISTANT]}) == Content(
        "messages", messages=(Message("system", "Be brief."), QUESTION, ANSWER)
    )


def test_messages_in_text_blocks() -> None:
    blocks = [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]
    found = read({"messages": [{"role": "user", "content": blocks}, ASSISTANT]})
    assert found == Content("messages", messages=(QUESTION, ANSWER))


@pytest.mark.parametrize(
    "names", [("human", "gpt"), ("user", "assistant"), ("human", "chatgpt"), ("user", "model")]
)
def test_sharegpt(names: tuple[str, str]) -> None:
    turns = [{"from": names[0], "value": "Why?"}, {"from": names[1], "value": "Because."}]
    assert read({"conversations": turns}) == Content("messages", messages=(QUESTION, ANSWER))


def test_alpaca() -> None:
    assert read({"instruction": "Why?", "input": "", "output": "Because."}) == Content(
        "messages", messages=(QUESTION, ANSWER)
    )
    found = read({"instruction": "Add.", "input": "1, 2", "output": "3", "system": "Count."})
    assert found is not None
    assert found.messages == (
        Message("system", "Count."),
        Message("user", "Add.\n\n1, 2"),
        Message("assistant", "3"),
    )


PREFERENCE = Content(
    "preference", messages=(QUESTION,), chosen=(ANSWER,), rejected=(Message("assistant", "No reason."),)
)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No reason."},
        {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [OTHER]},
        {"prompt": "Why?", "chosen": [ASSISTANT], "rejected": [OTHER]},
        {"chosen": [USER, ASSISTANT], "rejected": [USER, OTHER]},
        {"prompt": "Why?", "chosen": [USER, ASSISTANT], "rejected": [USER, OTHER], "messages": [USER, ASSISTANT]},
    ],
)
def test_preferences_in_all_shapes(fields: dict[str, Any]) -> None:
    assert read(fields) == PREFERENCE


def test_equal_preferences_keep_their_answers() -> None:
    found = read({"chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT]})
    assert found == Content("preference", messages=(QUESTION,), chosen=(ANSWER,), rejected=(ANSWER,))


def test_whole_conversations_part_after_several_turns() -> None:
    beginning = [USER, ASSISTANT, {"role": "user", "content": "And?"}]
    found = read({"chosen": [*beginning, ASSISTANT], "rejected": [*beginning, OTHER]})
    assert found is not None
    assert found.messages == (QUESTION, ANSWER, Message("user", "And?"))
    assert found.chosen == (ANSWER,)


@pytest.mark.parametrize("prompt", ["Why?", [USER]])
def test_prompts(prompt: object) -> None:
    assert read({"prompt": prompt}) == Content("prompt", messages=(QUESTION,))


@pytest.mark.parametrize(
    ("format_", "fields", "says"),
    [
        ("text", {"text": 7}, "no text in text"),
        ("text", {}, "no text in text"),
        ("messages", {"messages": []}, "no list of messages"),
        ("messages", {"messages": SECRET}, "no list of messages"),
        ("messages", {"messages": [SECRET]}, "no object as message 1"),
        ("messages", {"messages": [{"role": SECRET, "content": "a"}]}, "role in message 1"),
        ("messages", {"messages": [{"role": "tool", "content": SECRET}]}, "role in message 1"),
        (
            "messages",
            {"messages": [USER, {"role": "assistant", "content": None}]},
            "no text as content of message 2",
        ),
        ("messages", {"messages": [USER]}, "no message of the assistant"),
        ("messages", {"messages": [USER, {**ASSISTANT, "tool_calls": [SECRET]}]}, "calls a tool"),
        ("messages", {"messages": [USER, ASSISTANT, {"role": "system", "content": SECRET}]}, "system message"),
        (
            "messages",
            {"messages": [{"role": "user", "content": [{"type": "image", "text": SECRET}]}, ASSISTANT]},
            "other than text",
        ),
        ("messages", {"messages": [USER] * 10_001}, "more than 10000"),
        ("sharegpt", {"conversations": [{"from": SECRET, "value": "a"}]}, "from in message 1"),
        ("sharegpt", {"conversations": [{"from": "human"}, {"from": "gpt", "value": SECRET}]}, "no text as value"),
        ("alpaca", {"instruction": SECRET}, "no text in output"),
        ("alpaca", {"instruction": SECRET, "input": 3, "output": "a"}, "no text in input"),
        ("preference", {"prompt": SECRET, "chosen": "a"}, "no list of messages in rejected"),
        ("preference", {"chosen": SECRET, "rejected": "b"}, "no prompt"),
        ("preference", {"chosen": [USER, ASSISTANT], "rejected": [ASSISTANT]}, "one without"),
        (
            "preference",
            {"chosen": [USER, ASSISTANT], "rejected": [{"role": "user", "content": SECRET}, ASSISTANT]},
            "do not begin alike",
        ),
        ("preference", {"chosen": [USER, ASSISTANT], "rejected": [USER]}, "do not begin alike"),
        ("preference", {"prompt": [ASSISTANT], "chosen": "a", "rejected": "b"}, "does not end with the user"),
        ("prompts", {"prompt": [USER, ASSISTANT]}, "does not end with the user"),
        ("prompts", {"prompt": 7}, "no list of messages in prompt"),
    ],
)
def test_rows_that_do_not_fit_are_refused_without_their_text(
    format_: Format, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(FormatError, match=says) as raised:
        parse_content(fields, format_)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"text": " \n"},
        {"messages": [USER, {"role": "assistant", "content": " "}]},
        {"prompt": "\t"},
        {"prompt": "Why?", "chosen": "", "rejected": "b"},
        {"instruction": "Why?", "output": ""},
    ],
)
def test_rows_without_text_hold_nothing(fields: dict[str, Any]) -> None:
    assert read(fields) is None


@pytest.mark.parametrize(
    "fields", [{}, {"question": "a"}, {"instruction": "a"}, {"messages": None}, {"chosen": "a"}]
)
def test_unknown_columns_are_no_format(fields: dict[str, Any]) -> None:
    assert recognise_format(fields) is None


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
MESSAGES = st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), TEXTS), min_size=1, max_size=4)
CONTENTS = st.one_of(
    st.builds(lambda text: Content("text", text=text), TEXTS),
    st.builds(
        lambda messages, given: Content("messages", messages=tuple(messages), given=given),
        MESSAGES,
        st.integers(0, 3),
    ),
    st.builds(lambda messages: Content("prompt", messages=tuple(messages)), MESSAGES),
    st.builds(
        lambda prompt, chosen, rejected: Content(
            "preference", None, tuple(prompt), tuple(chosen), tuple(rejected)
        ),
        MESSAGES,
        MESSAGES,
        MESSAGES,
    ),
)


@given(CONTENTS, CONTENTS)
def test_row_ids_are_those_of_the_content(one: Content, other: Content) -> None:
    assert len(one.compute_row_id()) == 16
    assert int(one.compute_row_id(), 16) >= 0
    assert (one.compute_row_id() == other.compute_row_id()) == (one == other)


def test_row_ids_do_not_change_between_versions() -> None:
    assert Content("text", text="A line.\n").compute_row_id() == "bc1a23cffb75f25d"
    assert PREFERENCE.compute_row_id() == "a127c367df14cd56"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | TEXTS,
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "type", "text"]), inner)
        ),
        max_leaves=8,
    )
)
def test_any_json_is_read_or_refused(value: object) -> None:
    for format_, columns in (
        ("text", ["text"]),
        ("messages", ["messages"]),
        ("sharegpt", ["conversations"]),
        ("alpaca", ["instruction", "input", "output"]),
        ("preference", ["prompt", "chosen", "rejected"]),
        ("prompts", ["prompt"]),
    ):
        try:
            content = parse_content(dict.fromkeys(columns, value), format_)  # type: ignore[arg-type]
        except FormatError:
            continue
        assert content is None or content.count_characters() > 0
