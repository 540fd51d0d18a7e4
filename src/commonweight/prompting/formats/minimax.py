"""Format of MiniMax M2: XML with a tag for each argument.

Source: https://huggingface.co/MiniMaxAI/MiniMax-M2
"""

from commonweight.prompting.formats.syntax import ArgumentMarkup, ToolCallFormat

MINIMAX = ToolCallFormat(
    name="minimax",
    trigger="<minimax:tool_call>",
    opening="<minimax:tool_call>\n",
    before_name='<invoke name="',
    before_input='">\n',
    after_input="</invoke>\n",
    closing="</minimax:tool_call>",
    arguments=ArgumentMarkup('<parameter name="', '">', "</parameter>\n"),
)
