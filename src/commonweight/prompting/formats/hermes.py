"""Format of Hermes, Qwen 2.5 and 3, and many others: a JSON object between ``<tool_call>`` tags.

Source: https://github.com/NousResearch/Hermes-Function-Calling
"""

from commonweight.prompting.formats.syntax import ToolCallFormat

HERMES = ToolCallFormat(
    name="hermes",
    trigger="<tool_call>",
    before_name='<tool_call>\n{"name": "',
    before_input='", "arguments": ',
    after_input="}\n</tool_call>",
    between="\n",
)
