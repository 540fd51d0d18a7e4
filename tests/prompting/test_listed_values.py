"""Values that a schema lists come back as they are, whatever they look like, in every format of calls."""

from collections.abc import Sequence
from random import Random
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_writers import WRITERS, ModelWriter, as_json, read

from commonweight.prompting.constrain.grammar import AnswerRules

with_each_writer = pytest.mark.parametrize("writer", WRITERS, ids=str)

TAGS = [
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<arg_key>", "</arg_value>", "</arg_value>\n"),
    *("<|end|>", "<|channel|>", "[TOOL_CALLS]", "<|tool_call_end|>", "<｜tool▁sep｜>", "<seed:tool_call>"),
    *("</parameter>", "\n</parameter>", "</parameter>\n", "\n</parameter>\nx", "<parameter=b>\n", "</function>"),
]
"""Markup of one family or another, which may have a token of its own."""
PLAIN = ["", "a", "ab", "a\nb", " a ", "\n", "\na\n", "null", "true", "1", "-1.5", "{", "[]", '"a"', "\\", "é🙂"]


def rules_for(schema: dict[str, Any]) -> AnswerRules:
    """A call of a tool with this argument must follow."""
    definitions = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
    tool = {"type": "object", "properties": {"key": schema, "after": {"const": "z"}}, "required": ["key"]}
    return AnswerRules({"tool": {**tool, **definitions}}, must_call=True, allows_parallel_calls=False)


def read_value(writer: ModelWriter, rules: AnswerRules, tokens: Sequence[int]) -> Any:
    """The value of the argument in an answer."""
    found = read(writer.parser(rules), tokens)
    ((_, arguments),) = found.whole_calls
    assert found.text == ""
    assert arguments.get("after", "z") == "z"
    return arguments["key"]


# One that is listed alone is drawn however it is written.
SINGLE = [
    *TAGS,
    *PLAIN,
    "x<think>y",
    "<tool_call></tool_call>",
    1,
    True,
    None,
    1.5,
    ["</arg_value>"],
    {"a": "<|end|>"},
]


@with_each_writer
def test_a_single_value_comes_back(writer: ModelWriter) -> None:
    for value in SINGLE:
        for schema in ({"enum": [value]}, {"const": value}):
            rules = rules_for(schema)
            assert read_value(writer, rules, writer.draw(rules, Random(0))) == value


_values = st.sampled_from([*TAGS, *PLAIN]) | st.sampled_from(
    [None, True, False, 0, 1, -1.5, 12, "5", "nul", "tru"]
)
_lists = st.lists(_values, min_size=1, max_size=4, unique_by=as_json).map(lambda values: {"enum": values})
_schemas: st.SearchStrategy[dict[str, Any]] = st.recursive(
    _lists
    | _values.map(lambda value: {"const": value})
    | st.sampled_from([{"type": "null"}, {"type": "boolean"}]),
    lambda part: st.lists(part, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts}),
    max_leaves=4,
)


def list_values(schema: dict[str, Any]) -> list[Any]:
    """The values of such a schema."""
    if "anyOf" in schema:
        return [value for part in schema["anyOf"] for value in list_values(part)]
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum") or ([None] if schema["type"] == "null" else [True, False])


def as_text(value: object) -> str:
    return value if isinstance(value, str) else as_json(value)


@with_each_writer
@given(schema=_schemas, random=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_what_the_grammar_lets_through_is_a_value_of_the_schema(
    writer: ModelWriter, schema: dict[str, Any], random: Random
) -> None:
    rules = rules_for(schema)
    jsonschema_rs.validate(schema, read_value(writer, rules, writer.draw(rules, random)))


@with_each_writer
@given(schema=_schemas, random=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_every_value_of_the_schema_can_be_written_and_comes_back(
    writer: ModelWriter, schema: dict[str, Any], random: Random
) -> None:
    rules, values = rules_for(schema), list_values(schema)
    markup = writer.family.arguments
    texts = {as_text(value) for value in values}
    for value in values:
        tokens = writer.answer(calls=[("tool", {"key": value})]).tokens(random)
        if not writer.guide(rules).accepts(tokens):
            # Nothing tells it from a shorter one, where the markup is text.
            assert markup is not None
            assert writer.is_text(markup.after_value)
            written = as_text(value) + markup.after_value
            assert any(written.startswith(t + markup.after_value) for t in texts - {as_text(value)})
            continue
        found = read_value(writer, rules, tokens)
        # Between tags a string may read like another value; then it is the string.
        is_read_as_string = markup is not None and as_text(value) in values
        assert as_json(found) == as_json(as_text(value) if is_read_as_string else value)
