"""Answer rules and grammar of a request: its tools, tool choice, output schema, thinking and citations."""

from collections.abc import Sequence
from typing import Any, Literal

from commonweight.messages.content import ToolReferenceBlock, ToolResultBlock
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import BudgetedThinking, CountTokensRequest
from commonweight.messages.tools import NamedToolChoice
from commonweight.prompting.constrain.grammar import AnswerRules, GrammarWriter
from commonweight.prompting.constrain.schema import BadSchemaError, make_json_grammar
from commonweight.prompting.template.chat_template import ChatTemplate

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
    """
    choice = request.tool_choice
    kind = choice.type if choice else "auto"
    tools = find_loaded_tools(request)
    if isinstance(choice, NamedToolChoice):
        tools = {tool.name: tool.input_schema for tool in request.tools or [] if tool.name == choice.name}
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
        tools=tools,
        must_call=kind in ("any", "tool"),
        may_call=kind != "none",
        allows_parallel_calls=not (choice and choice.disable_parallel_tool_use) and kind != "tool",
        schema=request.output_schema,
        thinking=thinking,
        budget=budget,
        quotable=tuple(quotable) if any(quotable) else (),
        continues_text=continues_text,
        tenant=tenant,
    )


def write_answer_grammar(request: CountTokensRequest, rules: AnswerRules, writer: GrammarWriter) -> str | None:
    """The grammar for the answer to a request; None if nothing constrains it.

    Raises:
        InvalidRequestError: a schema that no answer can be constrained to, with its path in the request.
    """
    for i, tool in enumerate(request.tools or []):
        try:
            make_json_grammar(tool.input_schema, rules.tenant)
        except BadSchemaError as error:
            raise InvalidRequestError(f"tools.{i}.custom.input_schema: {error}") from error
    try:
        return writer.write(rules)
    except BadSchemaError as error:
        raise InvalidRequestError(f"output_config.format.schema: {error}") from error


def find_loaded_tools(request: CountTokensRequest) -> dict[str, dict[str, Any]]:
    """Input schemas, by tool name, of the tools that may be called: not deferred, or referred to since."""
    blocks = [block for message in request.messages for block in message.content]
    inner = [part for block in blocks if isinstance(block, ToolResultBlock) for part in block.content]
    referred = {block.tool_name for block in (*blocks, *inner) if isinstance(block, ToolReferenceBlock)}
    return {
        tool.name: tool.input_schema
        for tool in request.tools or []
        if not tool.defer_loading or tool.name in referred
    }
