"""Schemas of tools that are hard to keep to, as MCP servers send them: section 7."""

from commonweight.conformance.checks import check
from commonweight.conformance.conversation import GREETING, Json
from commonweight.conformance.sections.tools import check_one_call, this
from commonweight.conformance.target import Target
from commonweight.conformance.toolbox import CLOCK


def make_tool(properties: Json, *required: str, **keywords: object) -> Json:
    """A tool whose input has these properties."""
    schema = {"type": "object", "properties": properties, "required": list(required), **keywords}
    return {"name": "configure", "input_schema": schema}


HELD: Json = {
    "number": {"type": "integer", "minimum": 1, "maximum": 5},
    "word": {"type": "string", "enum": ["a", "b"]},
    "code": {"type": "string", "pattern": "^[0-9]{3}$"},
    "day": {"type": "string", "format": "date"},
}
LOOK_AHEAD: Json = {"type": "string", "pattern": "^(?!foo)[a-z]+$", "maxLength": 6}
"""A valid pattern, which the documentation lists among those that cannot be kept to."""
PARTLY_HELD = make_tool({**HELD, "name": LOOK_AHEAD}, *HELD, "name")

HARD = [
    PARTLY_HELD,
    make_tool({"q": {"type": "string"}}, "q", "undescribed"),
    make_tool({"a": {"type": "string", "enum": [1, 2]}}, "a"),
    make_tool({"a": {"type": "string", "minLength": 1.0}}),
    make_tool({"a": {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "maxItems": 3.0}}),
    make_tool({"a": {"$ref": "https://example.com/schema.json"}}, "a"),
    make_tool({"a": {"$ref": "#/properties/a"}}, "a"),
    make_tool({"a": {"not": {"type": "string"}}}, dependentRequired={"a": ["b"]}),
    make_tool({"a": {"type": "string", "format": "zork"}}, oneOf=[{"required": ["a"]}, {"required": []}]),
]
"""Valid schemas; some of them no input meets."""


@check()
async def offered_tools_fail_no_request(target: Target) -> None:
    """A tool that is only offered is accepted, however hard its schema is to keep to, or to meet (§7)."""
    for tool in HARD:
        await target.create_message(tools=[CLOCK, tool], max_tokens=1)


@check()
async def offered_tools_are_counted(target: Target) -> None:
    """`count_tokens` takes the same tools (§7)."""
    alone = await target.count(tools=[CLOCK])
    for tool in HARD:
        counted = await target.count(tools=[CLOCK, tool])
        assert counted > alone, f"{counted} tokens with {tool['input_schema']}, {alone} without"


@check()
async def one_keyword_loosens_no_other(target: Target) -> None:
    """A keyword that cannot be kept to leaves the others of a forced tool as they are, streamed or not (§7)."""
    arguments: Json = {"tools": [PARTLY_HELD], "tool_choice": this(PARTLY_HELD), "messages": GREETING}
    rest = make_tool({**HELD, "name": {"type": "string", "maxLength": 6}}, *HELD, "name")
    check_one_call(await target.create_message(**arguments, max_tokens=200), rest)
    check_one_call((await target.stream(**arguments, max_tokens=200)).message, rest)


@check()
async def strict_tools_are_kept_or_refused(target: Target) -> None:
    """A `strict` tool with a pattern that cannot be kept to is refused (§7)."""
    refusal = await target.read_refusal(tools=[CLOCK, PARTLY_HELD | {"strict": True}])
    assert refusal.startswith("tools.1"), f"the refusal does not say which tool: {refusal}"


@check()
async def forced_tools_that_nothing_meets(target: Target) -> None:
    """A forced tool that no input meets is refused by name, before a stream begins (§7)."""
    for schema in ({"$ref": "#/properties/a"}, {"type": "string", "enum": [1, 2]}):
        tool = make_tool({"a": schema}, "a")
        for stream in (False, True):
            refusal = await target.read_refusal(tools=[tool], tool_choice=this(tool), stream=stream)
            assert "configure" in refusal, f"the refusal does not name the tool: {refusal}"


@check()
async def properties_that_cannot_be(target: Target) -> None:
    """An optional property that no value meets is left out of a forced call (§7)."""
    tool = make_tool({"a": {"$ref": "#/properties/a"}}, additionalProperties=False)
    message = await target.create_message(tools=[tool], tool_choice=this(tool), messages=GREETING, max_tokens=64)
    check_one_call(message, make_tool({}, additionalProperties=False))


@check(needs="structured_outputs")
async def patterns_of_outputs(target: Target) -> None:
    """A pattern in `output_config.format` that cannot be kept to is refused by name (§5)."""
    schema = {
        "type": "object",
        "properties": {"name": LOOK_AHEAD},
        "required": ["name"],
        "additionalProperties": False,
    }
    refusal = await target.read_refusal(output_config={"format": {"type": "json_schema", "schema": schema}})
    assert refusal.startswith("output_config.format"), f"refused for: {refusal}"
    assert "pattern" in refusal, f"the refusal does not name the pattern: {refusal}"
