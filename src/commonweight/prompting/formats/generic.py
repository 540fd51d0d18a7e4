"""Fallback tool-call format for models not trained on tool calls; the prompt describes it to them."""

from commonweight.prompting.formats.syntax import ToolCallFormat

GENERIC = ToolCallFormat(
    name="generic",
    trigger="<tool_call>",
    before_name='<tool_call>\n{"name": "',
    before_input='", "arguments": ',
    after_input="}\n</tool_call>",
    between="\n",
)
