"""Formats of Mistral: before and since version 11 of its tokenizer.

Source: https://github.com/mistralai/mistral-common
"""

from dataclasses import replace

from commonweight.prompting.formats.syntax import CALL_ID, ToolCallFormat

MISTRAL = ToolCallFormat(
    name="mistral",
    trigger="[TOOL_CALLS]",
    opening="[TOOL_CALLS][",
    before_name='{"name": "',
    before_input='", "arguments": ',
    after_input=f', "id": "{CALL_ID}"}}',
    between=", ",
    closing="]",
)

MISTRAL_SPACED = replace(MISTRAL, name="mistral-spaced", opening="[TOOL_CALLS] [")

MISTRAL_IDS = ToolCallFormat(
    name="mistral-ids",
    trigger="[TOOL_CALLS]",
    before_name="[TOOL_CALLS]",
    before_input=f"[CALL_ID]{CALL_ID}[ARGS]",
    after_input="",
)

MISTRAL_ARGS = ToolCallFormat(
    name="mistral-args",
    trigger="[TOOL_CALLS]",
    before_name="[TOOL_CALLS]",
    before_input="[ARGS]",
    after_input="",
)
