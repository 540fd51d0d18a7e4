"""Tool-call format of Qwen 3 Coder and Qwen 3.5: XML, with a tag for each argument.

Source: https://huggingface.co/Qwen/Qwen3-Coder-30B-A3B-Instruct
"""

from commonweight.prompting.formats.syntax import ArgumentMarkup, ToolCallFormat

QWEN_CODER = ToolCallFormat(
    name="qwen-coder",
    trigger="<tool_call>",
    before_name="<tool_call>\n<function=",
    before_input=">\n",
    after_input="</function>\n</tool_call>",
    between="\n",
    arguments=ArgumentMarkup("<parameter=", ">\n", "\n</parameter>\n"),
)
