"""Formats of GLM 4.5 and later: tags around keys and values, since 4.7 without line breaks.

Source: https://huggingface.co/zai-org/GLM-4.6
"""

from commonweight.prompting.formats.syntax import ArgumentMarkup, ToolCallFormat

GLM = ToolCallFormat(
    name="glm",
    trigger="<tool_call>",
    before_name="<tool_call>",
    before_input="\n",
    after_input="</tool_call>",
    between="\n",
    arguments=ArgumentMarkup("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n"),
)

GLM_TIGHT = ToolCallFormat(
    name="glm-tight",
    trigger="<tool_call>",
    before_name="<tool_call>",
    before_input="",
    after_input="</tool_call>",
    arguments=ArgumentMarkup("<arg_key>", "</arg_key><arg_value>", "</arg_value>"),
)
