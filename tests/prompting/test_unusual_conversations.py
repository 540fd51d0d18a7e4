"""Every conversation that the API takes is shown by every template, and its beginning stays as it goes on."""

from typing import Any

import pytest
from families import FAMILIES, WITHOUT_TEMPLATE, Family
from hostile import Request, assistant, conversation, parsed, system, text, thinking, tool, user

from commonweight.prompting import Prompt


def call(name: str, **arguments: str) -> dict[str, Any]:
    """A call of the tool, with an id that ends with ``name``."""
    return {"type": "tool_use", "id": f"toolu_000000000{name}", "name": "t", "input": arguments}


def result(name: str, *content: str) -> dict[str, Any]:
    """The result of such a call, with content or without."""
    fields = {"content": content[0]} if content else {}
    return {"type": "tool_result", "tool_use_id": f"toolu_000000000{name}", **fields}


ANSWERED = [assistant("w8"), user("w9")]
EMPTY = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": " "}}
CONVERSATIONS: dict[str, list[Request]] = {
    "the assistant first": [assistant("w0"), user("w1"), *ANSWERED],
    "a call first": [assistant([call("a", k="w0")]), user([result("a", "w1")]), *ANSWERED],
    "calls and nothing else": [
        *(assistant([call("a", k="w0")]), user([result("a", "w1")])),
        *(assistant([call("b", k="w2")]), user([result("b", "w3")])),
    ],
    "text and a call first": [assistant([text("x"), call("a", k="w0")]), user([result("a", "w1")]), *ANSWERED],
    "text beside the first result": [
        *(assistant([call("a", k="w0")]), user([result("a", "w1"), text("w2")])),
        *ANSWERED,
    ],
    "a call and a begun answer": [assistant([call("a", k="w0")]), user([result("a", "w1")]), assistant("w2")],
    "reasoning and a call first": [
        *(assistant([thinking("x"), call("a", k="w0")]), user([result("a", "w1")])),
        *ANSWERED,
    ],
    "only a begun answer": [assistant("w0")],
    "a begun answer": [user("w0"), assistant("w1")],
    "the user twice": [user("w0"), user("w1"), assistant("w2"), user("w3"), user("w4")],
    "the assistant twice": [user("w0"), assistant("w1"), assistant("w2"), user("w3")],
    "calls at once": [
        *(user("w0"), assistant([call("a", k="w1"), call("b", k="w2")])),
        *(user([result("b", "w3"), result("a", "w4")]), *ANSWERED),
    ],
    "a result without content": [user("w0"), assistant([call("a", k="w1")]), user([result("a")]), *ANSWERED],
    "a call without input": [user("w0"), assistant([call("a")]), user([result("a", "w1")]), *ANSWERED],
    "a message after a result": [
        *(user("w0"), assistant([call("a", k="w1")]), user([result("a", "w2")]), user("w3")),
        *ANSWERED,
    ],
    "instructions after a result": [
        *(user("w0"), assistant([call("a", k="w1")]), user([result("a", "w2")]), system("w3")),
        *ANSWERED,
    ],
    "instructions in the middle": [user("w0"), assistant("w1"), user("w2"), system("w3"), *ANSWERED],
    "nothing but reasoning": [user("w0"), assistant([thinking("x")]), user("w1"), *ANSWERED],
    "an empty document": [user([EMPTY]), *ANSWERED],
}


def list_beginnings(messages: list[Request]) -> list[list[Request]]:
    """The conversation at each time that it was the assistant's turn, and as it is."""
    turns = range(1, len(messages))
    asked = [i for i in turns if messages[i]["role"] == "assistant" != messages[i - 1]["role"]]
    return [*(messages[:i] for i in asked), messages]


def render(family: Family, messages: list[Request], **fields: Any) -> tuple[Prompt, str]:
    """The prompt of a conversation, and its text without special tokens."""
    prompt = family.renderer.render(parsed(conversation(*messages, **fields)))
    return prompt, b"".join(map(family.tokenizer.decode, prompt.token_ids)).decode()


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("family", [*FAMILIES, WITHOUT_TEMPLATE], ids=str)
def test_every_conversation_is_shown_and_begins_like_before(family: Family, name: str) -> None:
    # Some templates move tools, or drop what was said beside a call once the user speaks.
    is_rewritten = family.moves_tools or (family.drops_reasoning != "never" and "'x'" in str(CONVERSATIONS[name]))
    for fields in ({"tools": [tool(name="t")]}, {"system": "Be kind."}):
        before: list[int] = []
        for messages in list_beginnings(CONVERSATIONS[name]):
            prompt, shown = render(family, messages, **fields)
            words = [f"w{i}" for i in range(10) if f'w{i}"' in str(messages).replace("'", '"')]
            assert [word for word in words if word not in shown] == []
            if not is_rewritten:
                assert prompt.token_ids[: len(before)] == before
            before = prompt.token_ids[: prompt.user_span[1]]


LINE = "(This conversation begins with the assistant.)"


@pytest.mark.parametrize(
    ("family", "name", "has_line"),
    [
        *(("qwen-3.5", "a call first", True), ("qwen-3.5", "the assistant first", False)),
        *(
            ("mistral", "the assistant first", True),
            ("gemma", "a call first", False),
            ("chatml", "a call first", False),
        ),
        *(("llama-3.1", "a call first", True), ("llama-3.1", "the user twice", False)),
        *(
            ("qwen-3", "a call first", False),
            ("qwen-3", "only a begun answer", True),
            ("qwen-3", "a begun answer", False),
        ),
    ],
)
def test_a_line_of_the_user_stands_only_where_a_template_insists(family: str, name: str, has_line: bool) -> None:
    found = next(f for f in FAMILIES if f.name == family)
    for messages in list_beginnings(CONVERSATIONS[name]):
        assert (LINE in render(found, messages, tools=[tool(name="t")])[1]) == has_line
