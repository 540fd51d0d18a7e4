"""Tools that a conversation adds and removes: where its prompt tells of them, and what the answer may call."""

import json
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from agents import Body, Model, Turn
from families import FAMILIES, STARTER, WITHOUT_TEMPLATE, Family
from hostile import (
    addition,
    assistant,
    conversation,
    parsed,
    reference,
    removal,
    schema,
    system,
    text,
    tool,
    tool_result,
    tool_use,
    user,
)
from llguidance import LLMatcher
from model_writers import grammar_tokenizer

from commonweight.messages.errors import InvalidRequestError
from commonweight.prompting import Prompt

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem

T = TypeVar("T")
EVERY = [*FAMILIES, WITHOUT_TEMPLATE]
with_every_family = pytest.mark.parametrize("family", EVERY, ids=str)
MARK = {"cache_control": {"type": "ephemeral"}}
SEARCH, NEW = tool(), tool(name="new", description="Just in.")
LATE = tool(name="late", description="Was deferred.", defer_loading=True)
HELLO = [user("first"), assistant("second"), user("third")]
CALLED = [user("first"), assistant([tool_use(input={"q": "x"})]), user([tool_result("found")])]


def prompt(family: Family, *messages: Body, **fields: object) -> Prompt:
    return family.renderer.render(parsed(conversation(*messages, **fields)))


def said(family: Family, *messages: Body, **fields: object) -> str:
    """Text of a prompt without its special tokens."""
    return b"".join(map(family.tokenizer.decode, prompt(family, *messages, **fields).token_ids)).decode()


class Spaced(Random):
    """Chooses the last of several ways: JSON with the spaces that the grammar asks for."""

    def choice(self, seq: "SupportsLenAndGetItem[T]") -> T:
        return seq[len(seq) - 1]


def call(family: Family, name: str, arguments: dict[str, Any] | None = None) -> list[int]:
    """What the model draws to call a tool."""
    offered = tool(name=name, input_schema=schema({}))
    turn = Turn(None, None, "", False, "", "", ((name, arguments or {"q": "x"}),))
    return Model(family, Spaced()).tokens(prompt(family, user("first"), tools=[offered]), turn)


def accepts(family: Family, answered: Prompt, token_ids: list[int]) -> bool:
    """Whether an answer to a prompt may be these tokens."""
    assert answered.grammar is not None
    guide = LLMatcher(grammar_tokenizer(family.tokenizer), answered.grammar)
    return guide.try_consume_tokens(token_ids) == len(token_ids)


@with_every_family
@pytest.mark.parametrize("before", [HELLO, CALLED], ids=["text", "result"])
@pytest.mark.parametrize("change", [addition("late"), addition(NEW), removal("search")], ids=lambda c: c["type"])
def test_a_change_is_told_where_it_stands(family: Family, before: list[Body], change: Body) -> None:
    tools = [SEARCH, LATE]
    last = "third" if before is HELLO else "found"
    plain, changed = (said(family, *before, *more, tools=tools) for more in ([], [system([change])]))
    told = {"tool_removal": "can no longer be called: search"}.get(change["type"], "can be called from now on:")
    start, end = changed.rindex(last) + len(last), changed.rindex(told)
    assert start < end
    assert changed[:start] == plain[: plain.rindex(last) + len(last)]
    later = said(family, *before, system([change]), assistant("yes"), user("on"), tools=tools)
    # Some families move all tools to the last message of the user.
    if not family.moves_tools:
        assert later.startswith(changed[: end + len(told)])
    assert later.rindex(told) < later.rindex("yes")


@with_every_family
def test_text_and_changes_of_a_message_are_told_in_order(family: Family) -> None:
    blocks = [text("alpha"), addition(NEW), text("beta"), removal("search"), text("gamma")]
    told = said(family, *HELLO, system(blocks), tools=[SEARCH])
    words = ["third", "alpha", "Just in.", "beta", "can no longer be called: search", "gamma"]
    places = [told.rindex(word) for word in words]
    assert places == sorted(places)


@with_every_family
def test_what_was_added_can_be_called(family: Family) -> None:
    new, late = call(family, "new"), call(family, "late")
    tools = [SEARCH, LATE]
    before = prompt(family, *HELLO, tools=tools)
    assert not accepts(family, before, new)
    assert not accepts(family, before, late)
    after = prompt(family, *HELLO, system([addition("late"), addition(NEW)]), tools=tools)
    assert accepts(family, after, new)
    assert accepts(family, after, late)


@with_every_family
def test_what_was_removed_cannot_be_called_until_it_comes_back(family: Family) -> None:
    search, new = call(family, "search"), call(family, "new")
    removed = [*CALLED, system([removal("search")])]
    after = prompt(family, *removed, tools=[SEARCH, NEW])
    assert not accepts(family, after, search)
    assert accepts(family, after, new)
    assert set(after.parser_config.tools or ()) == {"new"}
    assert accepts(family, prompt(family, *removed, system([addition("search")]), tools=[SEARCH, NEW]), search)
    assert accepts(family, prompt(family, *removed, system([addition(SEARCH)]), tools=[SEARCH, NEW]), search)


@with_every_family
def test_nothing_is_called_where_all_were_removed(family: Family) -> None:
    after = prompt(family, *CALLED, system([removal("search")]), tools=[SEARCH])
    none = prompt(family, *CALLED, system([removal("search")]), tools=[SEARCH], tool_choice={"type": "none"})
    assert after.grammar == none.grammar
    assert not after.parser_config.tools
    if after.grammar is not None:
        assert not accepts(family, after, call(family, "search"))


@with_every_family
def test_a_forced_call_is_one_of_the_tools_that_are_left(family: Family) -> None:
    changes = system([removal("search"), addition(NEW)])
    for choice in ({"type": "any"}, {"type": "tool", "name": "new"}):
        forced = prompt(family, *HELLO, changes, tools=[SEARCH, LATE], tool_choice=choice)
        assert accepts(family, forced, call(family, "new"))
        assert not accepts(family, forced, call(family, "search"))


@with_every_family
def test_the_latest_definition_is_what_holds(family: Family) -> None:
    numbered = tool(input_schema=schema({"n": {"type": "integer"}}, required=["n"], additionalProperties=False))
    after = prompt(family, *HELLO, system([addition(numbered)]), tools=[SEARCH])
    assert accepts(family, after, call(family, "search", {"n": 5}))
    assert not accepts(family, after, call(family, "search", {"q": "x"}))


@with_every_family
def test_the_first_tool_comes_with_how_to_call_it(family: Family) -> None:
    first, second = tool(name="new", description="Just in."), tool(name="more", description="Even more.")
    told = said(family, *HELLO, system([addition(first), addition(second)]))
    lesson = "A call is written like this"
    assert told.count(lesson) == 1
    assert told.index("third") < told.index("Just in.") < told.index(lesson) < told.index("Even more.")
    assert accepts(family, prompt(family, *HELLO, system([addition(first)])), call(family, "new"))
    # Where tools were declared the prompt has told it before.
    declared = said(family, *HELLO, system([addition(first)]), tools=[SEARCH])
    assert lesson not in declared[declared.index("third") :]


@with_every_family
def test_what_changes_nothing_changes_no_token(family: Family) -> None:
    once = prompt(family, *HELLO, system([addition(NEW)]), assistant("yes"), user("on"), tools=[SEARCH])
    again = [system([addition(NEW)]), assistant("yes"), user("on"), system([addition(NEW), addition("search")])]
    assert prompt(family, *HELLO, *again, tools=[SEARCH]).token_ids == once.token_ids


@with_every_family
@pytest.mark.parametrize(
    "change",
    [
        removal("search", **MARK),
        addition(NEW, **MARK),
        addition({**NEW, **MARK}),
        addition("search", **MARK),  # which changes nothing
    ],
    ids=lambda change: json.dumps(change)[:50],
)
def test_marks_on_changes(family: Family, change: Body) -> None:
    plain = json.loads(json.dumps(change))
    (plain["tool"].get("definition") or {}).pop("cache_control", None)
    plain.pop("cache_control", None)
    marked, unmarked = (
        prompt(family, *HELLO, system([block]), assistant("yes"), user("on"), tools=[SEARCH])
        for block in (change, plain)
    )
    assert marked.token_ids == unmarked.token_ids
    assert unmarked.marks == []
    [(position, ttl)] = marked.marks
    assert ttl == "5m"
    before = b"".join(map(family.tokenizer.decode, marked.token_ids[:position])).decode()
    told = {"tool_removal": "can no longer be called", "tool_addition": "Just in."}[change["type"]]
    assert (told if change != addition("search", **MARK) else "third") in before
    assert "yes" not in before


@with_every_family
def test_a_mark_on_a_tool_follows_it(family: Family) -> None:
    marked = prompt(family, user("first"), system="be kind", tools=[{**SEARCH, **MARK}])
    [(position, _)] = marked.marks
    before = b"".join(map(family.tokenizer.decode, marked.token_ids[:position])).decode()
    assert ("Finds." in before) or family.moves_tools
    assert "first" not in before


def test_references_load_what_messages_defined() -> None:
    deferred = {**NEW, "defer_loading": True}
    found = [
        user("first"),
        system([addition(deferred), text("Search for tools.")]),
        assistant([tool_use()]),
        user([tool_result([reference("new")])]),
    ]
    assert "Just in." not in said(STARTER, *found[:2], tools=[SEARCH])
    told = said(STARTER, *found, tools=[SEARCH])
    assert told.index("Search for tools.") < told.index("Just in.")
    assert accepts(STARTER, prompt(STARTER, *found, tools=[SEARCH]), call(STARTER, "new"))


def test_a_strict_definition_that_cannot_be_held_is_refused_with_its_place() -> None:
    impossible = tool(name="x", strict=True, input_schema=schema({"b": {"type": "objekt"}}))
    with pytest.raises(InvalidRequestError, match=r"^messages\.1\.content\.1\.tool\.definition\.input_schema: "):
        prompt(STARTER, user("first"), system([text("a"), addition(impossible)]), tools=[SEARCH])
