"""Answer rules and grammar of a request: its tools, tool choice, output schema, thinking and citations."""

from collections.abc import Sequence
from typing import Literal

from commonweight.messages.content import ToolResultBlock
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import BudgetedThinking, CountTokensRequest
from commonweight.messages.tools import NamedToolChoice
from commonweight.prompting.constrain.grammar import AnswerRules, GrammarWriter
from commonweight.prompting.constrain.schema import BadSchemaError, make_json_grammar
from commonweight.prompting.template.chat_template import ChatTemplate

_REASONING_BUDGETS = {"low": 1024, "medium": 4096}
"""Most tokens of reasoning by effort, for models whose template does not take an effort."""


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
    traced = request.trace_tools()
    can_call = traced.callable
    if isinstance(choice, NamedToolChoice):
        can_call = {choice.name: traced.known[choice.name]}
    thinking: Literal["begun", "possible", "over"] = "over"
    budget = None
    if thinks and template.thinking:
        is_begun = prompt.rstrip().endswith(template.thinking.opening)
        thinking = "begun" if is_begun else "possible"
        effort = None if template.has_effort else request.effort
        budget = _REASONING_BUDGETS.get(effort or "")
        if isinstance(request.thinking, BudgetedThinking):
            budget = request.thinking.budget_tokens
    return AnswerRules(
        # Where all were removed the prompt still shows them, and none may be called.
        tools={name: tool.input_schema for name, tool in (can_call or traced.known).items()},
        must_call=kind in ("any", "tool"),
        may_call=kind != "none" and bool(can_call),
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
    for where, tool in request.tool_definitions():
        try:
            make_json_grammar(tool.input_schema, rules.tenant)
        except BadSchemaError as error:
            raise InvalidRequestError(f"{where}.input_schema: {error}") from error
    try:
        return writer.write(rules)
    except BadSchemaError as error:
        raise InvalidRequestError(f"output_config.format.schema: {error}") from error
