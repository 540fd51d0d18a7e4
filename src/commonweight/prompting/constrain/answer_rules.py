"""Answer rules of a request: its tools, tool choice, output schema, thinking and citations."""

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from commonweight.messages.content import ToolResultBlock
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import BudgetedThinking, CountTokensRequest
from commonweight.messages.tools import NamedToolChoice, Tool
from commonweight.prompting.constrain.dialect import Unheld
from commonweight.prompting.constrain.grammar import AnswerRules
from commonweight.prompting.constrain.schema import (
    MAX_SUBSCHEMAS,
    BadSchemaError,
    HeldSchema,
    close_input,
    hold_schema,
)
from commonweight.prompting.template.chat_template import ChatTemplate

log = logging.getLogger(__name__)

_OUTPUT = "output_config.format.schema"

_MAX_LOGGED = 8
"""Most keywords in one line of the log."""
_MAX_POINTER = 120
"""Most characters of the place of one."""

_REASONING_BUDGETS = {"low": 1024, "medium": 4096}
"""Most tokens of reasoning by effort, for models whose template does not take an effort."""
_MAX_REASONING_BUDGET = 2**24
"""Tokens. No window is longer, and grammars count to 2^32 characters."""


def should_think(request: CountTokensRequest, template: ChatTemplate) -> bool:
    """Whether the request turns reasoning on, for a model that reasons."""
    thinking = request.thinking
    if template.thinking is None or thinking is None or thinking.type == "disabled":
        return False
    if thinking.type == "between_tools":
        latest = next((message for message in reversed(request.messages) if message.role == "user"), None)
        return latest is not None and any(isinstance(block, ToolResultBlock) for block in latest.content)
    return True


def make_answer_rules(
    request: CountTokensRequest,
    template: ChatTemplate,
    prompt: str,
    *,
    thinks: bool,
    continues_text: bool,
    quotable: Sequence[str],
    tenant: str,
) -> AnswerRules:
    """The rules for the answer to a request.

    ``prompt``: the rendered text, which may end inside the reasoning. ``thinks``: the model reasons first.
    ``continues_text``: the prompt ends with a prefill. ``quotable``: texts of the documents by their numbers, or
    empty strings for those that must not be quoted.

    Raises:
        InvalidRequestError: a schema that the answer must match, and cannot be held to.
    """
    choice = request.tool_choice
    kind = choice.type if choice else "auto"
    traced = request.trace_tools()
    can_call = traced.callable
    if isinstance(choice, NamedToolChoice):
        can_call = {choice.name: traced.known[choice.name]}
    # Where all were removed the prompt still shows them, and none may be called.
    tools = can_call or traced.known
    may_call = kind != "none" and bool(can_call)
    must_call = kind in ("any", "tool")
    inputs = _hold_inputs(request, list(tools.values()), must_call=must_call, tenant=tenant)
    output = _hold_output(request, tenant)
    thinking: Literal["begun", "possible", "over"] = "over"
    budget = None
    if thinks and template.thinking:
        is_begun = prompt.rstrip().endswith(template.thinking.opening)
        thinking = "begun" if is_begun else "possible"
        effort = None if template.has_effort else request.effort
        budget = _REASONING_BUDGETS.get(effort or "")
        if isinstance(request.thinking, BudgetedThinking):
            budget = min(request.thinking.budget_tokens, _MAX_REASONING_BUDGET)
    return AnswerRules(
        tools={name: held.schema for name, held in inputs.items()},
        must_call=must_call,
        may_call=may_call,
        allows_parallel_calls=not (choice and choice.disable_parallel_tool_use) and kind != "tool",
        schema=output.schema if output else None,
        unheld=(
            *(name + unheld.pointer for name, held in inputs.items() for unheld in held.unheld if may_call),
            *(_OUTPUT + unheld.pointer for unheld in (output.unheld if output else ())),
        ),
        thinking=thinking,
        budget=budget,
        quotable=tuple(quotable) if any(quotable) else (),
        continues_text=continues_text,
        tenant=tenant,
    )


def _hold_inputs(
    request: CountTokensRequest, tools: Sequence[Tool], *, must_call: bool, tenant: str
) -> dict[str, HeldSchema]:
    """What grammars hold of the schemas of these tools' inputs, by the tools' names.

    A tool that is only offered never makes a request fail: schemas of MCP servers have many mistakes.
    """
    room = MAX_SUBSCHEMAS
    places = {tool.name: f"{where}.input_schema" for where, tool in request.tool_definitions()}
    inputs = {}
    for tool in sorted(tools, key=lambda tool: not tool.strict):
        where = places[tool.name]
        try:
            held = hold_schema(close_input(tool.input_schema), tenant)
        except BadSchemaError as error:
            raise InvalidRequestError(f"{where}: {error}") from error
        if held.size > room:
            held = HeldSchema({}, (Unheld("#", "the schemas of all tools together are too large"),), held.problem)
        room -= held.size
        if held.unheld and tool.strict:
            first = held.unheld[0]
            raise InvalidRequestError(f"{where}: strict tool {tool.name!r}: {first.pointer}: {first.reason}")
        _log_unheld(f"tool {tool.name!r}", held.unheld)
        inputs[tool.name] = held
    if must_call and all(held.problem for held in inputs.values()):
        name, held = next(iter(inputs.items()))
        raise InvalidRequestError(f"{places[name]}: tool {name!r} must be called: {held.problem}")
    return {tool.name: inputs[tool.name] for tool in tools}


def _hold_output(request: CountTokensRequest, tenant: str) -> HeldSchema | None:
    """What a grammar holds of the schema of the output."""
    schema = request.output_schema
    if schema is None:
        return None
    try:
        held = hold_schema(schema, tenant)
    except BadSchemaError as error:
        raise InvalidRequestError(f"{_OUTPUT}: {error}") from error
    for unheld in held.unheld:
        # The rest (uniqueItems, formats) is in what frameworks generate, and never was refused.
        if unheld.is_mistake or unheld.is_expression:
            raise InvalidRequestError(f"{_OUTPUT}: {unheld.pointer}: {unheld.reason}")
    if held.problem:
        raise InvalidRequestError(f"{_OUTPUT}: {held.problem}")
    _log_unheld(_OUTPUT, held.unheld)
    return held


@lru_cache(maxsize=1024)
def _log_unheld(owner: str, unheld: tuple[Unheld, ...]) -> None:
    """Log what answers are not held to, once for each schema: agents send theirs with every request."""
    if unheld:
        first = "; ".join(f"{part.pointer[:_MAX_POINTER]}: {part.reason}" for part in unheld[:_MAX_LOGGED])
        more = f"; {len(unheld) - _MAX_LOGGED} more" if len(unheld) > _MAX_LOGGED else ""
        log.warning("%s: answers are not held to %s%s", owner, first, more)
