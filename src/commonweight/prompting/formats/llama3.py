"""Format of Llama 3.1 to 3.3: one JSON object that is the whole answer.

Source: https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1/
"""

from commonweight.prompting.formats.syntax import ToolCallFormat

LLAMA3 = ToolCallFormat(
    name="llama3",
    trigger='{"name": "',
    before_name='{"name": "',
    before_input='", "parameters": ',
    after_input="}",
    is_whole_answer=True,
    takes_one_call=True,
)
