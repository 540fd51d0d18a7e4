"""Drawing conversations with tools from the table: harmless ones, and ones in which something harmful is asked."""

import json
import random
from dataclasses import dataclass
from typing import Any, Literal

from commonweight.workshop.alignment.tool_table import Task, ToolTable, draw_values, fill, fill_text

ToolLoopKind = Literal["harmless", "injected", "delegated", "ordered"]
"""Where something harmful is asked: nowhere, in a result beside what the user asked for, in a result that the user
said to follow, or in the user's own order, so that a call would do it."""
HARMFUL: tuple[ToolLoopKind, ...] = ("injected", "delegated", "ordered")

_CALL_ID = "toolu_1"
_MAX_OTHER_TOOLS = 2


@dataclass(frozen=True)
class ToolLoop:
    """A conversation as the Messages API takes it, up to the answer, and the right answer."""

    kind: ToolLoopKind
    task: str
    """Its name in the table."""
    request: dict[str, Any]
    answer: str


class ToolLoopWriter:
    """Draws conversations from a table; equal dice give equal conversations."""

    def __init__(self, table: ToolTable) -> None:
        self._table = table
        self._injectable = sorted(name for name, task in table.tasks.items() if task.takes_note)

    def write_harmless(self, dice: random.Random) -> ToolLoop:
        """A task that is done, and nothing harmful in it."""
        name = dice.choice(sorted(self._table.tasks))
        task = self._table.tasks[name]
        values = self._draw_values(dice)
        values["note"] = fill_text(dice.choice(task.notes), values)
        return self._write_loop("harmless", name, task, values, dice.choice(task.answers), dice)

    def write_harmful(self, kind: ToolLoopKind, asked: str, refusal: str, dice: random.Random) -> ToolLoop:
        """A conversation in which something harmful is asked, and what declines it.

        Args:
            asked: the request.
            refusal: an answer that turns it away.
        """
        values = self._draw_values(dice)
        match kind:
            case "injected":
                name = dice.choice(self._injectable)
                task = self._table.tasks[name]
                values["note"] = fill_text(dice.choice(self._table.injections), {"request": asked})
                remark = dice.choice(self._table.remarks)
                # With and without what is said to that request where a user makes it.
                ending = dice.choice(("", f" {refusal}"))
                answer = f"{dice.choice(task.answers)}\n\n{remark}"
                loop = self._write_loop(kind, name, task, values, answer, dice)
                return ToolLoop(kind, name, loop.request, loop.answer + ending)
            case "delegated":
                name = dice.choice(sorted(self._table.delegations))
                task = self._table.delegations[name]
                loop = self._write_loop(
                    kind, name, task, values | {"request": asked}, dice.choice(task.answers), dice
                )
                return ToolLoop(kind, name, loop.request, f"{loop.answer} {refusal}")
            case _:
                return self._write_order(asked, refusal, values, dice)

    def _write_order(self, asked: str, refusal: str, values: dict[str, str], dice: random.Random) -> ToolLoop:
        name = dice.choice(sorted(self._table.orders))
        order = self._table.orders[name]
        request = self._begin(order.tools, values, dice)
        text = fill_text(dice.choice(order.requests), values | {"request": asked})
        request["messages"] = [{"role": "user", "content": text}]
        said = fill_text(dice.choice(order.answers), values)
        return ToolLoop("ordered", name, request, f"{refusal} {said}")

    def _write_loop(
        self,
        kind: ToolLoopKind,
        name: str,
        task: Task,
        values: dict[str, str],
        answer: str,
        dice: random.Random,
    ) -> ToolLoop:
        """The user's request, the call, its result, and the answer."""
        request = self._begin((task.tool,), values, dice)
        called = next(
            tool["name"] for tool in request["tools"] if tool["name"] in self._table.tools[task.tool].names
        )
        asked = fill_text(dice.choice(task.requests), values)
        arguments = {key: fill_text(value, values) for key, value in task.arguments.items()}
        result = fill(task.result, values)
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
        request["messages"] = [
            {"role": "user", "content": asked},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": _CALL_ID, "name": called, "input": arguments}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": _CALL_ID, "content": text}]},
        ]
        return ToolLoop(kind, name, request, fill_text(answer, values))

    def _begin(self, needed: tuple[str, ...], values: dict[str, str], dice: random.Random) -> dict[str, Any]:
        """System text and definitions of the tools that are needed, among others."""
        others = sorted(self._table.tools.keys() - set(needed))
        chosen = [*needed, *dice.sample(others, dice.randint(0, _MAX_OTHER_TOOLS))]
        dice.shuffle(chosen)
        system = fill_text(dice.choice(self._table.systems), values)
        tools = [self._define(tool, dice) for tool in chosen]
        return {"tools": tools} | ({"system": system} if system else {})

    def _define(self, name: str, dice: random.Random) -> dict[str, Any]:
        tool = self._table.tools[name]
        properties = {key: {"type": "string", "description": text} for key, text in tool.parameters.items()}
        return {
            "name": dice.choice(tool.names),
            "description": tool.description,
            "input_schema": {"type": "object", "properties": properties, "required": list(properties)},
        }

    def _draw_values(self, dice: random.Random) -> dict[str, str]:
        return draw_values(self._table, dice)
