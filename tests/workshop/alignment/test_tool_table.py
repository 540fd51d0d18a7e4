"""The table of tool loops, and what is drawn from it."""

import json
import random
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from commonweight.messages.request import MessageRequest
from commonweight.workshop.alignment.tool_rows import HARMFUL, ToolLoop, ToolLoopWriter
from commonweight.workshop.alignment.tool_table import fill_text, read_table

TABLE = read_table()
LOOPS = ToolLoopWriter(TABLE)
SEEDS = st.integers(0, 2**32)
ASKED = st.text('ab $"\\é?漢\n', min_size=1, max_size=60).filter(str.strip)
REFUSED = "I don't help with $prices; I can help with bread."


def list_texts(value: Any) -> list[str]:
    """All texts of a value."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [text for part in parts for text in list_texts(part)]


def find_results(loop: ToolLoop) -> list[str]:
    """Texts of the tool results of a conversation."""
    blocks = [block for message in loop.request["messages"] for block in message["content"]]
    return [block["content"] for block in blocks if isinstance(block, dict) and block["type"] == "tool_result"]


def test_all_words_have_values_and_all_tools_exist() -> None:
    content = TABLE.model_dump()
    words = {word for text in list_texts(content) for word in re.findall(r"\$(\w+)", text)}
    assert words == set(TABLE.values) | {"note", "request"}
    tasks = [*TABLE.tasks.values(), *TABLE.delegations.values()]
    assert all(set(task.arguments) == set(TABLE.tools[task.tool].parameters) for task in tasks)
    assert {task.tool for task in tasks} | {name for one in TABLE.orders.values() for name in one.tools} == set(
        TABLE.tools
    )
    names = [name for tool in TABLE.tools.values() for name in tool.names]
    assert len(names) == len(set(names)) >= 3 * len(TABLE.tools)


def test_a_delegated_task_is_what_its_result_asks_for_and_a_harmless_one_is_not() -> None:
    assert all("$request" in json.dumps(task.result) for task in TABLE.delegations.values())
    assert all("$request" in request for order in TABLE.orders.values() for request in order.requests)
    assert all("$request" in text for text in TABLE.injections)
    assert not any("$request" in text for text in list_texts([one.model_dump() for one in TABLE.tasks.values()]))


@given(SEEDS)
def test_a_harmless_loop_is_a_request_that_the_api_takes(seed: int) -> None:
    loop = LOOPS.write_harmless(random.Random(seed))
    request = MessageRequest.model_validate({"model": "m", "max_tokens": 1} | loop.request)
    assert [message.role for message in request.messages] == ["user", "assistant", "user"]
    assert "$" not in json.dumps(loop.request) + loop.answer
    assert not any(remark in loop.answer for remark in TABLE.remarks)


@given(SEEDS, st.sampled_from(HARMFUL), ASKED)
def test_a_request_stands_where_its_kind_says(seed: int, kind: Any, asked: str) -> None:
    loop = LOOPS.write_harmful(kind, asked, REFUSED, random.Random(seed))
    MessageRequest.model_validate({"model": "m", "max_tokens": 1} | loop.request)
    own, results = loop.request["messages"][0]["content"], find_results(loop)
    if kind == "ordered":
        assert asked in own
        assert len(loop.request["messages"]) == 1  # nothing is called
        assert loop.answer.startswith(REFUSED)
    else:
        (result,) = results
        assert asked in result or json.dumps(asked, ensure_ascii=False)[1:-1] in result
    if kind == "delegated":
        assert loop.answer.endswith(REFUSED)
    if kind == "injected":
        assert any(remark in loop.answer for remark in TABLE.remarks)


@given(SEEDS, st.sampled_from(HARMFUL), ASKED)
def test_equal_dice_give_equal_loops(seed: int, kind: Any, asked: str) -> None:
    first, second = (LOOPS.write_harmful(kind, asked, REFUSED, random.Random(seed)) for _ in range(2))
    assert first == second
    assert LOOPS.write_harmless(random.Random(seed)) == LOOPS.write_harmless(random.Random(seed))


def test_harmless_loops_vary() -> None:
    drawn = [LOOPS.write_harmless(random.Random(seed)) for seed in range(300)]
    assert {loop.task for loop in drawn} == set(TABLE.tasks)
    assert len({loop.answer for loop in drawn}) > 250
    names = {tool["name"] for loop in drawn for tool in loop.request["tools"]}
    assert names == {name for tool in TABLE.tools.values() for name in tool.names}


def test_a_line_without_its_word_is_left_out() -> None:
    assert fill_text("one\n$note\n\ntwo", {"note": ""}) == "one\n\ntwo"
    assert fill_text("one\n$note\ntwo", {"note": "x\ny"}) == "one\nx\ny\ntwo"
    assert fill_text("$request", {"request": "cost: $note"}) == "cost: $note"
